"""Plays episodes: one environment, one policy or scripted expert, one record each."""

import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from vlamem.memory.seeding import stream
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memory_policy import MemoryPolicy, Tick
from vlamem.policies.protocol import FrozenPolicy, Observation
from vlamem.policies.registry import EXPERTS, find_policy, load_policy
from vlamem.policies.spec import SpecMismatchError
from vlamem.policies.voices import Voice, identity
from vlamem.sim.memories import MemoryControl, MemoryName, OracleVoice, voice_of
from vlamem.sim.plan import RolloutConfig
from vlamem.sim.recording import DiskFullError, EpisodeRecord, side_by_side, with_gate, write_video
from vlamem.sim.suite import SuiteEnv, images_of, load_suite

WARM_UP = 3
"""The first decisions of each process, left out of latencies: caches are cold and libraries load lazily."""
_ALL = np.array([True])
_FIRST = np.array([0])
_ELSEWHERE = 500_000
"""How far away the episode is whose memory content the leak control takes."""


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
        self._voice: Voice | None = None
        if config.policy not in EXPERTS:
            source = find_policy(config.policy)
            self._policy = load_policy(source)
            name = MemoryName.parse(config.memory)
            self._voice = voice_of(name, self._policy, identity(self._policy, source.sha256), config.budget)
            wrapped = MemoryPolicy(self._policy, self._voice, options=config.speak_options())
            self._runner = ChunkRunner(wrapped, 1, config.execute)
        # networks that read several observations at once see every control step
        self._past: deque[dict[str, Any]] = deque(maxlen=getattr(self._policy, "history", 1))
        self._env: SuiteEnv | None = None
        self._task = ""
        self._decisions = 0

    @property
    def env(self) -> SuiteEnv:
        """The environment of the episode that is played. Raises RuntimeError before the first."""
        if self._env is None:
            raise RuntimeError("no episode has been played yet")
        return self._env

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
            "arm": config.arm,
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
        control = self._control(env, task, episode)
        filmed = episode < config.video
        frames = []
        instruction = self._reset(env, task, episode)
        progress |= {"instruction": instruction, "steps": 0, "decisions": 0}
        progress |= {"writes": 0, "ticks": 0, "state_bytes": runner.policy.state_bytes if runner else 0}
        success = ended = False
        while not ended:
            full = env.observe() if filmed or self._past.maxlen != 1 else None
            tick = None
            if runner is None:
                action = env.expert_action()
            else:
                if full is not None:
                    self._past.append(full)
                if control is not None:
                    control.before(env)
                tick, took = self._tick(runner, env, full)
                if tick is not None:
                    progress["writes"] += int(tick.wrote.sum())
                    progress["ticks"] += 1
                if runner.due().size:
                    milliseconds += self._plan(runner, tick or self._seen(env, full), took)
                    progress["decisions"] += 1
                action = runner.pop()[0]
            if filmed and full is not None:
                frames.append(_frame(full, tick))
            _, _, terminated, truncated, info = env.step(action)
            progress["steps"] += 1
            self._beat()
            success, ended = bool(info["success"]), terminated or truncated
        progress["outcome"] = "success" if success else "failure"
        if filmed:
            name = f"{task}-{episode:04d}.mp4"
            title = f"{task} {episode}: {progress['instruction']} ({progress['outcome']})"
            write_video(config.out / "videos" / name, frames, env.control_hz, title)

    def _reset(self, env: SuiteEnv, task: str, episode: int) -> str:
        """Starts an episode; returns its sentence."""
        config = self._config
        observation, _ = env.reset(options={"episode": episode, "split": config.split, "wording": config.wording})
        if self._runner is not None:
            self._past.clear()
            self._runner.reset(_ALL, [stream(config.seed, "noise", task, episode)])
            self._camera = stream(config.seed, "camera", task, episode)
        return str(observation["instruction"])

    def _tick(self, runner: ChunkRunner, env: SuiteEnv, full: dict[str, Any] | None) -> tuple[Tick | None, float]:
        """One control step of the memory and its time [s]; nothing and 0 where no memory ticks."""
        if not runner.policy.ticks:
            return None, 0.0
        if isinstance(self._voice, OracleVoice):
            self._voice.tell(env)
        seen = self._seen(env, full)
        began = time.perf_counter()
        tick = runner.observe(seen)
        return tick, time.perf_counter() - began

    def _plan(self, runner: ChunkRunner, seen: Tick | Observation, took: float) -> list[float]:
        """Plans one chunk; returns the time of this step's encoding, memory and sampling in ms, nothing in warm-up."""
        began = time.perf_counter()
        runner.plan(_FIRST, seen)
        took += time.perf_counter() - began
        self._decisions += 1
        return [1e3 * took] if self._decisions > WARM_UP else []

    def _seen(self, env: SuiteEnv, full: dict[str, Any] | None) -> Observation:
        """What the policy sees now."""
        assert self._policy is not None
        full = full or env.observe()
        images = {name: image[None] for name, image in images_of(full, self._policy.spec.cameras).items()}
        body = full["proprioception"][None]
        depth = self._past.maxlen or 1
        if depth > 1 and self._past:
            past = [self._past[0]] * (depth - len(self._past)) + list(self._past)
            images = {name: np.stack([seen[name] for seen in past])[None] for name in images}
            body = np.stack([seen["proprioception"] for seen in past])[None]
        if self._config.camera_noise:
            for name, image in images.items():
                noise = self._config.camera_noise * self._camera.standard_normal(image.shape, dtype=np.float32)
                images[name] = np.clip(image + noise, 0, 255).astype(np.uint8)
        return Observation(images, body, (full["instruction"],))

    def _control(self, env: SuiteEnv, task: str, episode: int) -> MemoryControl | None:
        """What takes the memory apart in this episode; `other` first plays another episode up to its cue's end."""
        config, runner = self._config, self._runner
        if runner is None or config.memory_control == "none":
            return None
        control = MemoryControl(config.memory_control, runner.policy, task, episode, config.seed)
        if config.memory_control == "other":
            place: Any = env
            self._reset(env, task, episode + _ELSEWHERE)
            ended = False
            while not ended and place.task.now <= max(1, getattr(place.task, "cue_end", 0)):
                tick, _ = self._tick(runner, env, None)
                if runner.due().size and tick is not None:
                    runner.plan(_FIRST, tick)
                _, _, terminated, truncated, _ = env.step(runner.pop()[0])
                self._beat()
                ended = terminated or truncated
            control.other = runner.policy.state(0)
        return control

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


def _frame(full: dict[str, Any], tick: Tick | None) -> np.ndarray:
    """The cameras side by side, with the gate's firing marked where a memory ticks."""
    images = side_by_side(v for v in full.values() if getattr(v, "ndim", 0) == 3)
    if tick is None:
        return images
    confidence = 0.0 if tick.proposal is None else float(tick.proposal.confidence[0])
    return with_gate(images, float(tick.gate[0]), bool(tick.wrote[0]), confidence)


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
