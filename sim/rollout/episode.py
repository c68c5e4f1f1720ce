"""Plays episodes: one policy or scripted expert, and an environment for each episode that is played at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from vlamem.core.seeding import stream
from vlamem.core.spec import SpecMismatchError
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memories import load_memories
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import EXPERTS, find_policy, load_policy
from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord
from vlamem.sim.rollout.ablations import DONOR_OFFSET, OF_THE_OUTPUT, OF_THE_STATE, OutputAblation, StateAblation
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.oracles import Privileged
from vlamem.sim.rollout.row import Row, seen_by
from vlamem.sim.suites.protocol import SuiteEnv, images_of
from vlamem.sim.suites.registry import load_suite

WARM_UP = 3
"""The first decisions of each process, left out of latencies: caches are cold and libraries load lazily."""


class Player:
    """Plays episodes of a run in this process: one group after the other, those of a group side by side.

    Each episode of a group has an environment of its own; memory and policy take all that still go on in one forward
    pass. Keeps the environments of the last task, so groups of one task are best played in a row. What an episode does
    depends on (task, split, episode, seed), and, as sums differ with the rows of a pass, on the group that it is in.
    """

    def __init__(self, config: RolloutConfig, beat: Callable[[], None]) -> None:
        """`beat` is called after every control step. Raises what the three
        of `load_suite`, `find_policy` and `load_policy` raise."""
        self._config, self._beat = config, beat
        self._suite = load_suite(config.suite)
        self._policy: FrozenPolicy | None = None
        self._runner: ChunkRunner | None = None
        most = min(config.batch, config.episodes)
        if config.policy not in EXPERTS:
            source = find_policy(config.policy)
            self._policy = load_policy(source)
            memories = load_memories(config.memories(), self._policy, source.sha256, most)
            policy = self._policy
            if config.ablation in OF_THE_OUTPUT:
                policy = OutputAblation(policy, config.ablation)
            wrapped = MemoryPolicy(policy, memories, most)
            self._runner = ChunkRunner(wrapped, most, config.execute)
        self._envs: list[SuiteEnv | None] = [None] * most
        self._task = ""
        self._passes = 0

    @property
    def env(self) -> SuiteEnv:
        """The environment of the first episode that is played. Raises RuntimeError before the first."""
        if self._envs[0] is None:
            raise RuntimeError("no episode has been played yet")
        return self._envs[0]

    def check(self, task: str) -> None:
        """Raises SpecMismatchError or SuiteError when policy and environment were not made for each other."""
        self._open(task, 0)

    def play(self, task: str, episode: int) -> EpisodeRecord:
        """`play_together` of one episode."""
        return self.play_together(task, (episode,))[0]

    def play_together(self, task: str, episodes: Sequence[int]) -> list[EpisodeRecord]:
        """Episodes side by side, at most `batch` of the run; their records in the order given.

        What an environment raises is recorded as the error of its episode, and the others go on; what policy or memory
        raise, as the error of all that are still played. The time of a pass is divided over its rows, that of the whole
        over the episodes. Raises DiskFullError when a video cannot be written, and the errors of `check`.
        """
        rows = [self._row(i, self._open(task, i), task, episode) for i, episode in enumerate(episodes)]
        began = time.perf_counter()
        self._play(rows)
        seconds = (time.perf_counter() - began) / len(rows)
        return [row.record(seconds) for row in rows]

    def _row(self, index: int, env: SuiteEnv, task: str, episode: int) -> Row:
        cameras = self._policy.spec.cameras if self._policy else ()
        return Row(index, env, self._config, task, episode, cameras, self._policy.history if self._policy else 1)

    def _play(self, rows: Sequence[Row]) -> None:
        for row in rows:
            with self._blamed([row]):
                row.control = self._control(row)
                self._reset(row)
        while playing := [row for row in rows if not row.ended]:
            for row in playing:
                with self._blamed([row]):
                    self._look(row)
            tick = None
            if self._runner is not None and (playing := [row for row in playing if not row.ended]):
                with self._blamed(playing):
                    tick = self._think(playing)
            for row in playing:
                if not row.ended:
                    with self._blamed([row]):
                        self._go_on(row, tick)

    def _go_on(self, row: Row, tick: Tick | None) -> None:
        """One control step of a row where a memory ticks, else all until the row is due or ends.

        Environments that take turns drive each other out of the processor's cache: physics then takes a third longer.
        """
        while True:
            action = self._pop(row) if self._runner else row.env.expert_action()
            row.film(tick)
            over = row.step(action)
            self._beat()
            if over:
                row.finish()
                return
            if self._runner and (self._runner.policy.ticks or self._due(row)):
                return
            self._look(row)

    @contextmanager
    def _blamed(self, rows: Sequence[Row]) -> Iterator[None]:
        """Whatever is raised inside ends the episodes of `rows` as errors; a full disk ends the run."""
        try:
            yield
        except DiskFullError:
            raise
        except Exception as error:  # an environment can raise anything; the run goes on and says so
            for row in rows:
                row.fail(error)
                self._close(row.index)

    def _reset(self, row: Row) -> None:
        """Starts an episode."""
        row.reset()
        if self._runner is not None:
            mask = np.arange(len(self._envs)) == row.index
            noise = stream(self._config.seed, "noise", row.task, row.episode)
            self._runner.reset(mask, [noise] * len(mask))
            row.progress["state_bytes"] = self._runner.policy.state_bytes
        if row.index:
            self._beat()  # many environments take as long as many steps

    def _look(self, row: Row) -> None:
        """What a row sees in this control step, where its memory or a plan wants it."""
        runner = self._runner
        if runner is None:
            row.look(False)
            return
        ticks = runner.policy.ticks
        row.look(ticks or self._due(row))
        if row.control is not None:
            row.control.before_tick(row.env)
        for memory in runner.policy.memories:
            if isinstance(memory, Privileged):
                memory.look(row.env, row.index)

    def _think(self, rows: Sequence[Row]) -> Tick | None:
        """One control step of the rows' memories, where these tick, and the plans that are due.

        Times of encoding, memory and sampling are divided over the rows of a pass and kept after warm-up.
        """
        runner = self._runner
        assert runner is not None
        at = np.array([row.index for row in rows])
        tick, shared = None, 0.0
        if runner.policy.ticks:
            seen = seen_by(rows)
            began = time.perf_counter()
            tick = runner.observe(seen, at)
            shared = (time.perf_counter() - began) / len(rows)
            for row, wrote in zip(rows, tick.wrote, strict=True):
                row.progress["writes"] += int(wrote)
                row.progress["ticks"] += 1
        due = runner.due(at)
        if due.size:
            planned = [row for row in rows if row.index in due]
            wanted = tick or seen_by(planned)
            began = time.perf_counter()
            runner.plan(due, wanted)
            took = shared + (time.perf_counter() - began) / len(planned)
            self._passes += 1
            for row in planned:
                row.progress["decisions"] += 1
                if self._passes > WARM_UP:
                    row.milliseconds.append(1e3 * took)
        return tick

    def _due(self, row: Row) -> bool:
        """Whether a row has no action left."""
        return self._runner is not None and bool(self._runner.due(np.array([row.index])).size)

    def _pop(self, row: Row) -> np.ndarray:
        """The next action of a row."""
        assert self._runner is not None
        action: np.ndarray = self._runner.pop(np.array([row.index]))[0]
        return action

    def _control(self, row: Row) -> StateAblation | None:
        """What acts on the memory in this episode; `swap` first plays another episode up to its cue's end."""
        config, runner = self._config, self._runner
        if runner is None or config.ablation not in OF_THE_STATE:
            return None
        control = StateAblation(config.ablation, runner.policy, row.task, row.episode, config.seed)
        if config.ablation == "swap":
            other = self._row(row.index, row.env, row.task, row.episode + DONOR_OFFSET)
            self._reset(other)
            shown = False
            while not other.ended and not (shown and other.progress["steps"] > 1):
                cue = other.env.cue()
                shown = cue is None or cue.over
                self._look(other)
                self._think([other])
                other.step(self._pop(other))
                self._beat()
            control.donor = runner.policy.state(row.index)
        return control

    def _open(self, task: str, index: int) -> SuiteEnv:
        """The environment of a row, made for `task` when it is not there yet."""
        if self._task != task:
            self.close()
            self._task = task
        found = self._envs[index]
        if found is not None:
            return found
        config = self._config
        guessing = {"guessing": True} if config.policy == "random-choice" else {}
        env = self._suite.make(
            task, image_size=config.size, render=config.render, **config.task_parameters(), **guessing
        )
        if self._policy is not None:
            _check(env, self._policy, config)
        env.render_on_step = False
        self._envs[index] = env
        if index:
            self._beat()
        return env

    def _close(self, index: int) -> None:
        env, self._envs[index] = self._envs[index], None
        if env is not None:
            env.close()

    def close(self) -> None:
        """Closes the environments."""
        for index in range(len(self._envs)):
            self._close(index)


def _check(env: SuiteEnv, policy: FrozenPolicy, config: RolloutConfig) -> None:
    """Raises SpecMismatchError naming what differs between environment and policy, SuiteError for a missing camera."""
    spec, name = policy.spec, f"policy '{policy.spec.name}'"
    env.action_spec.check(spec.action, f"suite '{config.suite}'", name)
    if spec.control_hz and env.control_hz != spec.control_hz:  # 0: a checkpoint does not say
        raise SpecMismatchError(
            f"suite '{config.suite}' runs at {env.control_hz:g} Hz and {name} was trained at {spec.control_hz:g} Hz: "
            "choose a policy made for this rate"
        )
    observation, _ = env.reset(options={"episode": 0, "split": config.split, "wording": config.wording})
    images = images_of(observation, spec.cameras)
    for camera, image in images.items():
        if image.shape != (spec.image_size, spec.image_size, 3):
            raise SpecMismatchError(
                f"camera '{camera}' gives {image.shape[0]} x {image.shape[1]} pixels and {name} reads "
                f"{spec.image_size} x {spec.image_size}: use --size {spec.image_size}"
            )
    proprioception: np.ndarray = observation["proprioception"]
    if proprioception.shape != (spec.proprioception_size,):
        raise SpecMismatchError(
            f"suite '{config.suite}' has {proprioception.size} proprioceptive values and {name} reads "
            f"{spec.proprioception_size}: choose a policy made for this robot"
        )
