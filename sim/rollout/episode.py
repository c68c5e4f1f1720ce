"""Plays the episodes of a run: one policy or scripted expert, and an environment for each that is played at once."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlamem.core.spec import SpecMismatchError
from vlamem.memory.runner import HoldsFile
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memories import load_memories
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import EXPERTS, find_policy, load_policy
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.ablations import OF_THE_OUTPUT, OF_THE_STATE, OutputAblation
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.hooks import HOOKS, EpisodeHooks, HookContext
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.oracles import Privileged
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.rollout.trials import initial_state, noise_of
from vlamem.sim.suites.protocol import SuiteEnv, SuiteError, images_of
from vlamem.sim.suites.registry import load_suite


class Player:
    """Plays episodes of a run in this process: one group after the other, those of a group side by side.

    Each episode of a group has an environment of its own; memory and policy take all that still go on in one forward
    pass. Keeps the environments of the last task, so groups of one task are best played in a row. What an episode does
    depends on (task, split, episode, seed), and, as sums differ with the rows of a pass, on the group that it is in;
    with a memory that learns, on the episodes before it too.
    """

    def __init__(self, config: RolloutConfig, beat: Callable[[], None], hooks: Sequence[EpisodeHooks] = ()) -> None:
        """`beat` is called after every control step, `hooks` beside those that `config` asks for.

        Raises what `load_suite`, `find_policy`, `load_policy` and `load_memories` raise.
        """
        self._config, self._beat = config, beat
        self._suite = load_suite(config.suite)
        most = min(config.batch, config.episodes)  # a row costs an environment: no more than can be played
        self._policy: FrozenPolicy | None = None
        runner: ChunkRunner | None = None
        if config.policy not in EXPERTS:
            source = find_policy(config.policy)
            self._policy = load_policy(source)
            memories = load_memories(config.memories(), self._policy, source.sha256, most)
            policy = self._policy  # memories were loaded for it: an ablation changes the samples, not their fit
            if config.ablation in OF_THE_OUTPUT:
                policy = OutputAblation(policy, config.ablation)
            runner = ChunkRunner(MemoryPolicy(policy, memories, most), most, config.execute)
        wrapped = runner.policy if runner else None
        context = HookContext(config, wrapped, self._rehearse)
        chosen = [HOOKS.get(name)(context) for name in _hooks_of(config, wrapped)]
        # an environment that raised is closed, and made anew for the next episode of its row
        self._loop = EpisodeLoop(runner, [*chosen, *hooks], beat, lambda row: self._close(row.index))
        self._envs: list[SuiteEnv | None] = [None] * most
        self._made_with: list[dict[str, Any]] = [{}] * most
        self._task = ""

    @property
    def env(self) -> SuiteEnv:
        """The environment of the first episode that is played. Raises RuntimeError before the first."""
        if self._envs[0] is None:
            raise RuntimeError("no episode has been played yet")
        return self._envs[0]

    @property
    def policy(self) -> MemoryPolicy | None:
        """The policy that plays, with its memories; None for a scripted expert."""
        return self._loop.runner.policy if self._loop.runner else None

    def check(self, task: str) -> None:
        """Raises SpecMismatchError or SuiteError when policy and environment were not made for each other."""
        self._open(task, 0, 0)

    def play(self, task: str, episode: int) -> EpisodeRecord:
        """`play_together` of one episode."""
        return self.play_together(task, (episode,))[0]

    def play_together(self, task: str, episodes: Sequence[int]) -> list[EpisodeRecord]:
        """Episodes side by side, at most `batch` of the run; their records in the order given.

        What an environment raises is recorded as the error of its episode, and the others go on; what policy or memory
        raise, as the error of all that are still played. The time of a pass is divided over its rows, that of the whole
        over the episodes. Raises DiskFullError when a video cannot be written, and the errors of `check`.
        """
        rows = [self._row(i, self._open(task, i, episode), task, episode) for i, episode in enumerate(episodes)]
        began = time.perf_counter()
        self._loop.play(rows)
        seconds = (time.perf_counter() - began) / len(rows)
        return [row.record(seconds) for row in rows]

    def _row(self, index: int, env: SuiteEnv, task: str, episode: int) -> Row:
        config, policy = self._config, self._policy
        state = initial_state(config, episode)
        options = {"episode": state.number, "split": config.split, "wording": config.wording}
        start = Start(task, episode, options, noise_of(config, task, episode))
        row = Row(index, env, start, policy.spec.cameras if policy else (), policy.history if policy else 1)
        row.progress = {
            "arm": config.arm,
            "task": task,
            "split": config.split,
            "episode": episode,
            "seed": config.seed,
            "initial_state": state.name(config.split),
        }
        return row

    def _rehearse(self, row: Row, episode: int, until: Callable[[Row], bool]) -> None:
        """See HookContext."""
        self._loop.rehearse(self._row(row.index, row.env, row.task, episode), until)

    def _open(self, task: str, index: int, episode: int) -> SuiteEnv:
        """The environment of a row, made for `task` when it is not there yet."""
        config = self._config
        parameters = config.task_parameters(episode)
        if self._task != task:
            self._close_all()
            self._task = task
        found = self._envs[index]
        if found is not None and self._made_with[index] == parameters:
            return found
        self._close(index)
        guessing = {"guessing": True} if config.policy == "random-choice" else {}
        try:
            env = self._suite.make(task, image_size=config.size, render=config.render, **parameters, **guessing)
        except TypeError as error:
            if guessing and "guessing" in str(error):
                raise SuiteError(
                    f"suite '{self._suite.name}' has no expert that guesses: let its make take guessing=True"
                ) from error
            raise
        if self._policy is not None:
            state = {"episode": 0, "split": config.split, "wording": config.wording}
            check_fit(env, self._policy, config.suite, state, config.size)
        env.render_on_step = False  # images are drawn when a memory or a plan reads them, not at every step
        self._envs[index], self._made_with[index] = env, parameters
        if index:
            self._beat()  # many environments take long to make: the watchdog must not take that for a hang
        return env

    def _close(self, index: int) -> None:
        env, self._envs[index] = self._envs[index], None
        if env is not None:
            env.close()

    def _close_all(self) -> None:
        for index in range(len(self._envs)):
            self._close(index)

    def close(self) -> None:
        """Closes the environments, the hooks and the files of memories."""
        self._close_all()
        for hook in self._loop.hooks:
            hook.close()
        for memory in self._loop.runner.policy.memories if self._loop.runner else ():
            if isinstance(memory, HoldsFile):
                memory.close()


def _hooks_of(config: RolloutConfig, policy: MemoryPolicy | None) -> list[str]:
    """Names of the hooks that a run needs, in the order of HOOKS, then those that it names itself."""
    needed = {
        "camera-noise": config.camera_noise > 0,
        "state-ablation": config.ablation in OF_THE_STATE,
        "oracle": policy is not None and any(isinstance(memory, Privileged) for memory in policy.memories),
        "video": config.video > 0,
        "learn": config.learns,
        "trace": config.trace,
    }
    return [*(name for name, wanted in needed.items() if wanted), *config.hooks]


def check_fit(env: SuiteEnv, policy: FrozenPolicy, suite: str, options: dict[str, Any], size: int) -> None:
    """Raises SpecMismatchError naming what differs between environment and policy, SuiteError for a missing camera.

    The environment is reset with `options`, and was made to draw `size` pixels.
    """
    spec, name = policy.spec, f"policy '{policy.spec.name}'"
    env.action_spec.check(spec.action, f"suite '{suite}'", name)
    if spec.control_hz and env.control_hz != spec.control_hz:  # 0: a checkpoint does not say
        raise SpecMismatchError(
            f"suite '{suite}' runs at {env.control_hz:g} Hz and {name} was trained at {spec.control_hz:g} Hz: "
            "choose a policy made for this rate"
        )
    observation, _ = env.reset(options=options)
    images = images_of(observation, spec.cameras)
    for camera, image in images.items():
        height, width = spec.size_of(camera)
        if image.shape != (height, width, 3):
            mend = f"use --size {height}" if height == width else "suites draw squares, choose a policy made for these"
            if image.shape[:2] != (size, size):
                mend = "this suite draws them as it does whatever --size says, choose a policy made for these"
            raise SpecMismatchError(
                f"camera '{camera}' gives {image.shape[0]} x {image.shape[1]} pixels and {name} reads {height} x "
                f"{width}: {mend}"
            )
    proprioception: np.ndarray = observation["proprioception"]
    if proprioception.shape != (spec.proprioception_size,):
        raise SpecMismatchError(
            f"suite '{suite}' has {proprioception.size} proprioceptive values and {name} reads "
            f"{spec.proprioception_size}: choose a policy made for this robot"
        )
