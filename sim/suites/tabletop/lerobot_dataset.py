"""Demonstrations as a LeRobotDataset (format v3): every tick, cameras as video, and the simulator's state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.sim.suites.dataset_episodes import PlayedEpisode, append_episodes
from vlamem.sim.suites.disturbance import Disturbance, bursts, pushed
from vlamem.sim.suites.tabletop.demonstrations import plan
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.render import CAMERAS
from vlamem.sim.suites.tabletop.scene import CONTROL_HZ


@dataclass(frozen=True)
class Recorded:
    """What is recorded of an episode.

    Attributes:
        size: height and width of a picture [pixels].
        cameras: whose pictures.
        parameters: what the tasks are made with.
        disturbed: whether the hand is pushed off its way now and then; the expert's own action is what is recorded.
    """

    size: int = 84
    cameras: Sequence[str] = tuple(CAMERAS)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    disturbed: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.cameras if name not in CAMERAS]
        if unknown or not self.cameras:
            raise ValueError(f"cameras {list(self.cameras)}: expected some of {', '.join(CAMERAS)}")


def features(what: Recorded, state_size: int) -> dict[str, dict[str, Any]]:
    """LeRobot's feature table of the tabletop suite; `state_size` is that of MuJoCo's qpos and qvel together."""
    size = what.size
    image = {"dtype": "video", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    state = ["x", "y", "z", "qw", "qx", "qy", "qz", "gripper_opening"]
    action = ["dx", "dy", "dz", "rx", "ry", "rz", "gripper"]
    return {
        **{f"observation.images.{name}": image for name in what.cameras},
        "observation.state": {"dtype": "float32", "shape": (8,), "names": state},
        "observation.simulator_state": {"dtype": "float32", "shape": (state_size,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": action},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }


def write_lerobot(
    episodes: Mapping[str, int],
    out: Path,
    size: int,
    progress: Callable[[int, int], None],
    cameras: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    disturbed: bool = False,
) -> None:
    """Records `episodes` demonstrations of each task into `out`/dataset; resumable.

    For the rest see `Recorded`; all cameras when none is named. Raises FileExistsError when these or other
    demonstrations are there already, ValueError for an unknown camera, SuiteError for parameters that a task does not
    take.
    """
    what = Recorded(size, tuple(cameras) or tuple(CAMERAS), parameters or {}, disturbed)
    append_episodes(
        list(plan(episodes, 0, 1)), out / "dataset", "expert", lambda task, number: _play(task, number, what), progress
    )


def _play(task: str, episode: int, what: Recorded) -> PlayedEpisode:
    """One demonstration; without frames where it fails."""
    from vlamem.sim.suites.tabletop import SUITE

    env = SUITE.make(task, image_size=what.size, **what.parameters)
    try:
        frames = _episode(env, episode, what)
    finally:
        env.close()
    state_size = len(frames[0]["observation.simulator_state"]) if frames else 0
    return PlayedEpisode(features(what, state_size), CONTROL_HZ, "panda", frames or (), bool(frames))


def _episode(env: TabletopEnv, episode: int, what: Recorded) -> list[dict[str, Any]] | None:
    rng = stream(0, "lerobot dataset", env.task.name, episode)
    pushes = bursts(rng, Disturbance(), env.task.longest) if what.disturbed else []
    env.render_on_step = False
    seen, _ = env.reset(options={"episode": episode, "split": "train"})
    frames = []
    while True:
        action = env.expert_action()
        state = np.concatenate([env.scene.data.qpos, env.scene.data.qvel]).astype(np.float32)
        frame = {
            **{f"observation.images.{name}": env.picture(name) for name in what.cameras},
            "observation.state": seen["proprioception"],
            "observation.simulator_state": state,
            "action": action,
            "task": seen["instruction"],
        }
        command = pushed(action, env.action_spec, pushes, env.task.now)
        seen, _, terminated, truncated, info = env.step(command)
        frames.append({**frame, "next.success": np.array([info["success"]])})
        if terminated or truncated:
            return frames if info["success"] else None
