"""Records episodes of any suite as a LeRobotDataset (format v3): every control step, cameras as video.

The action of a frame is that of the expert, also where the hand is pushed off its way, or of a policy. Of an expert the
episodes that fail are left out; of a policy all are kept, and `next.success` tells them apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.memory.runner import HoldsFile
from vlamem.policies.chunk_runner import ChunkRunner
from vlamem.policies.memories import load_memories, parse_memories
from vlamem.policies.memory_policy import MemoryPolicy
from vlamem.policies.registry import EXPERTS, find_policy, load_policy
from vlamem.sim.rollout.episode import check_fit
from vlamem.sim.rollout.hooks import EpisodeHooks
from vlamem.sim.rollout.loop import EpisodeLoop
from vlamem.sim.rollout.oracles import ORACLES
from vlamem.sim.rollout.row import Row, Start
from vlamem.sim.suites.dataset_episodes import PlayedEpisode, append_episodes
from vlamem.sim.suites.disturbance import Disturbance, bursts, pushed, translations
from vlamem.sim.suites.protocol import NoExpertError, SuiteEnv, images_of
from vlamem.sim.suites.registry import DEFAULT_SUITE, load_suite

__all__ = ["DatasetCollection", "collect_dataset"]

_IMAGES, _STATE = "observation.images.", "observation.state"
_EXECUTE = 8


@dataclass(frozen=True)
class DatasetCollection:
    """What to record.

    Attributes:
        episodes: by task, the first so many of split "train".
        out: directory; the dataset is its folder `dataset`.
        suite: of the tasks.
        actor: "expert", or a policy as in `--policy`.
        memory: that a policy acts with, as in `--memory`.
        size: of an image, where the suite draws them in any [pixels].
        cameras: whose images are recorded; all when none is named.
        parameters: of the tasks.
        disturbed: whether the expert's hand is pushed off its way now and then.
    """

    episodes: Mapping[str, int]
    out: Path
    suite: str = DEFAULT_SUITE
    actor: str = "expert"
    memory: str = "none"
    size: int = 84
    cameras: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    disturbed: bool = False

    @property
    def by(self) -> str:
        """Who acts, for who goes on with the recording."""
        return self.actor if self.memory == "none" else f"{self.actor} with {self.memory}"


class _FrameRecorder(EpisodeHooks):
    """Keeps a frame of each control step of one episode."""

    def __init__(self, what: DatasetCollection, rng: np.random.Generator) -> None:
        self._what, self._rng = what, rng
        self._shoves: Sequence[Any] = ()
        self._action: np.ndarray = np.zeros(0)
        self.frames: list[dict[str, Any]] = []

    def episode_began(self, row: Row) -> None:
        """Has every step drawn, and draws when the hand is pushed."""
        row.drawn = True
        if self._what.disturbed:
            self._shoves = bursts(self._rng, Disturbance(), 1200)

    def act(self, row: Row, action: Float[np.ndarray, "A"]) -> Float[np.ndarray, "A"]:
        """The action within its range, pushed aside as it is executed."""
        self._action = pushed(action, row.env.action_spec, (), row.steps)
        return pushed(action, row.env.action_spec, self._shoves, row.steps)

    def stepped(self, row: Row, action: Float[np.ndarray, "A"], info: dict[str, Any]) -> None:
        """Keeps what was seen before the step, what was done, and whether it succeeded."""
        assert row.full is not None
        images = images_of(row.full, self._what.cameras or _cameras(row.full))
        self.frames.append(
            {f"{_IMAGES}{name}": image for name, image in images.items()}
            | {
                _STATE: row.full["proprioception"],
                "action": np.asarray(self._action, np.float32),
                "next.success": np.array([row.success]),
                "task": row.full["instruction"],
            }
        )


def collect_dataset(what: DatasetCollection, progress: Callable[[int, int], None]) -> None:
    """Records `what`, resumable; `progress(succeeded, unsuccessful)` after every episode.

    Raises ValueError for an actor, camera or rate that cannot be recorded, FileExistsError when these or other episodes
    are there already, and what `find_policy`, `load_memories` and the suite raise.
    """
    if what.actor in EXPERTS and what.memory != "none":
        raise ValueError(f"--memory {what.memory} is a policy's, and the expert acts: name one with --actor")
    if what.actor not in EXPERTS and what.disturbed:
        raise ValueError(f"--disturbed pushes the expert, and {what.actor} acts: leave it out")
    stage = _Stage(what)
    jobs = [(task, number) for task, n in what.episodes.items() for number in range(n)]
    try:
        append_episodes(jobs, what.out / "dataset", what.by, stage.play, progress)
    finally:
        stage.close()


class _Stage:
    """Who acts, and the environment of the task at hand."""

    def __init__(self, what: DatasetCollection) -> None:
        self._what, self._suite = what, load_suite(what.suite)
        self._env: SuiteEnv | None = None
        self._task = ""
        self._runner: ChunkRunner | None = None
        if what.actor in EXPERTS:
            return
        names = parse_memories((what.memory,))
        if any(name.kind in ORACLES for name in names):
            raise ValueError(f"memory '{what.memory}' gets its answer from the simulator: name another")
        source = find_policy(what.actor)
        policy = load_policy(source)
        memories = load_memories(names, policy, source.sha256, 1)
        self._runner = ChunkRunner(MemoryPolicy(policy, memories), 1, min(_EXECUTE, policy.spec.horizon))

    def play(self, task: str, episode: int) -> PlayedEpisode:
        """One episode; without frames where an expert fails."""
        what, runner, env = self._what, self._runner, self._open(task)
        policy = None if runner is None else runner.policy.policy
        rng = stream(0, "dataset", self._suite.name, task, episode, what.by)
        start = Start(task, episode, {"episode": episode, "split": "train", "wording": "training"}, rng)
        cameras, history = ((), 1) if policy is None else (policy.spec.cameras, policy.history)
        row, recorder = Row(0, env, start, cameras, history), _FrameRecorder(what, rng)
        try:
            EpisodeLoop(runner, [recorder]).play([row])
        except NoExpertError as error:
            raise NoExpertError(f"{error}; or let a policy act, with --actor") from error
        frames = recorder.frames if row.success or runner is not None else ()
        rate = round(env.control_hz)
        return PlayedEpisode(_features(recorder.frames[0], env), rate, self._suite.name, frames, row.success)

    def _open(self, task: str) -> SuiteEnv:
        """The environment of a task. Raises ValueError for one that cannot be recorded as was asked."""
        if self._env is not None and self._task == task:
            return self._env
        self._close_env()
        what, suite = self._what, self._suite.name
        parameters = dict(what.parameters) | ({"guessing": True} if what.actor == "random-choice" else {})
        env = self._env = self._suite.make(task, image_size=what.size, **parameters)
        self._task = task
        if what.disturbed and not translations(env.action_spec):
            raise ValueError(
                f"--disturbed pushes a hand by the translations of its actions, and suite '{suite}' has none: leave it "
                "out"
            )
        if env.control_hz != round(env.control_hz):
            raise ValueError(
                f"suite '{suite}' runs at {env.control_hz:g} Hz and a LeRobotDataset has a whole number of frames a "
                "second: its episodes cannot be recorded as one"
            )
        if self._runner is not None:
            state = {"episode": 0, "split": "train", "wording": "training"}
            check_fit(env, self._runner.policy.policy, suite, state, what.size)
        env.render_on_step = False  # each step is drawn once, before it is made
        return env

    def _close_env(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def close(self) -> None:
        """Closes the environment and the files of memories."""
        self._close_env()
        for memory in self._runner.policy.memories if self._runner else ():
            if isinstance(memory, HoldsFile):
                memory.close()


def _cameras(observation: Mapping[str, Any]) -> list[str]:
    """Names of all that is an image in an observation."""
    return [name for name, value in observation.items() if getattr(value, "ndim", 0) == 3]


def _features(frame: Mapping[str, Any], env: SuiteEnv) -> dict[str, dict[str, Any]]:
    """LeRobot's table of what a frame holds. Raises ValueError without proprioception."""
    state = frame[_STATE].shape
    if not state[0]:
        raise ValueError(
            "the suite has no proprioception, and a LeRobotDataset has a state: name the keys of one, as with "
            "suite_from_gym proprioception="
        )
    entries = list(env.action_spec.entries)
    return {
        name: {"dtype": "video", "shape": value.shape, "names": ["height", "width", "channels"]}
        for name, value in frame.items()
        if name.startswith(_IMAGES)
    } | {
        _STATE: {"dtype": "float32", "shape": state, "names": None},
        "action": {"dtype": "float32", "shape": (len(entries),), "names": entries},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }
