"""Plays episodes: one environment, one policy or scripted expert, one record each."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from vlamem.memory.seeding import stream
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.protocol import FrozenPolicy, Observation
from vlamem.policies.registry import EXPERTS, find_policy, load_policy
from vlamem.policies.spec import SpecMismatchError
from vlamem.sim.plan import RolloutConfig
from vlamem.sim.recording import DiskFullError, EpisodeRecord, side_by_side, write_video
from vlamem.sim.suite import SuiteEnv, images_of, load_suite

WARM_UP = 3
"""The first decisions of each process, left out of latencies: caches are cold and libraries load lazily."""
_ALL = np.array([True])
_FIRST = np.array([0])


class Player:
    """Plays episodes of a run, one after the other, in this process.

    Keeps the environment of the last task, so episodes of one task are best played in a row. What an episode does
    depends on (task, split, episode, seed) alone.
    """

    def __init__(self, config: RolloutConfig, beat: Callable[[], None]) -> None:
        """`beat` is called after every control step. Raises what the three
        of `load_suite`, `find_policy` and `load_policy` raise."""
        self._config, self._beat = config, beat
        self._suite = load_suite(config.suite)
        self._policy: FrozenPolicy | None = None
        self._runner: ChunkRunner | None = None
        if config.policy not in EXPERTS:
            self._policy = load_policy(find_policy(config.policy))
            self._runner = ChunkRunner(self._policy, 1, config.execute)
        self._env: SuiteEnv | None = None
        self._task = ""
        self._decisions = 0

    def check(self, task: str) -> None:
        """Raises SpecMismatchError or SuiteError when policy and environment were not made for each other."""
        self._open(task)

    def play(self, task: str, episode: int) -> EpisodeRecord:
        """One episode. Whatever the environment or the policy raises in it is recorded as an error.

        Raises DiskFullError when a video cannot be written, and the errors of `check`.
        """
        config = self._config
        env = self._open(task)
        progress: dict[str, Any] = {
            "arm": config.memory,
            "task": task,
            "split": config.split,
            "episode": episode,
            "seed": config.seed,
            "initial_state": f"{config.split}/{episode}",
        }
        milliseconds: list[float] = []
        began = time.perf_counter()
        try:
            self._play(env, progress, milliseconds)
        except DiskFullError:
            raise
        except Exception as error:  # an environment can raise anything; the run goes on and says so
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            progress |= {"outcome": "error", "error": f"{type(error).__name__}: {error} ({place})"}
            self.close()
        wall = {"seconds": time.perf_counter() - began, "decision_ms": [round(ms, 3) for ms in milliseconds]}
        return EpisodeRecord(**progress, wall_clock=wall)

    def _play(self, env: SuiteEnv, progress: dict[str, Any], milliseconds: list[float]) -> None:
        config, runner = self._config, self._runner
        task, episode = progress["task"], progress["episode"]
        filmed = episode < config.video
        frames = []
        observation, _ = env.reset(options={"episode": episode, "split": config.split, "wording": config.wording})
        progress |= {"instruction": observation["instruction"], "steps": 0, "decisions": 0}
        if runner is not None:
            runner.reset(_ALL, [stream(config.seed, "noise", task, episode)])
        success = ended = False
        while not ended:
            if filmed:
                full = env.observe()
                frames.append(side_by_side(v for v in full.values() if getattr(v, "ndim", 0) == 3))
            if runner is None:
                action = env.expert_action()
            else:
                if runner.due().size:
                    milliseconds += self._plan(runner, env)
                    progress["decisions"] += 1
                action = runner.pop()[0]
            _, _, terminated, truncated, info = env.step(action)
            progress["steps"] += 1
            self._beat()
            success, ended = bool(info["success"]), terminated or truncated
        progress["outcome"] = "success" if success else "failure"
        if filmed:
            name = f"{task}-{episode:04d}.mp4"
            title = f"{task} {episode}: {progress['instruction']} ({progress['outcome']})"
            write_video(config.out / "videos" / name, frames, env.control_hz, title)

    def _plan(self, runner: ChunkRunner, env: SuiteEnv) -> list[float]:
        """Plans one chunk; returns its time in ms, or nothing during warm-up."""
        assert self._policy is not None
        observation = env.observe()
        images = images_of(observation, self._policy.spec.cameras)
        batch = Observation(
            {name: image[None] for name, image in images.items()},
            observation["proprioception"][None],
            (observation["instruction"],),
        )
        began = time.perf_counter()
        runner.plan(_FIRST, batch)
        took = 1e3 * (time.perf_counter() - began)
        self._decisions += 1
        return [took] if self._decisions > WARM_UP else []

    def _open(self, task: str) -> SuiteEnv:
        if self._env is not None and self._task == task:
            return self._env
        self.close()
        config = self._config
        guessing = {"guessing": True} if config.policy == "random-choice" else {}
        env = self._suite.make(
            task, image_size=config.size, render=config.render, **config.task_parameters(), **guessing
        )
        if self._policy is not None:
            _check(env, self._policy, config)
        env.render_on_step = False
        self._env, self._task = env, task
        return env

    def close(self) -> None:
        """Closes the environment."""
        env, self._env = self._env, None
        if env is not None:
            env.close()


def _check(env: SuiteEnv, policy: FrozenPolicy, config: RolloutConfig) -> None:
    """Raises SpecMismatchError naming what differs between environment and policy, SuiteError for a missing camera."""
    spec, name = policy.spec, f"policy '{policy.spec.name}'"
    env.action_spec.check(spec.action, f"suite '{config.suite}'", name)
    if env.control_hz != spec.control_hz:
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
