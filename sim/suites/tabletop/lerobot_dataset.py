"""Demonstrations as a LeRobotDataset (format v3): every tick, cameras as video, and the simulator's state.

The dataset is recorded in parts, each a complete dataset; a killed recording loses the part it was at. The parts are
joined at the end.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.seeding import stream
from vlamem.sim.suites.disturbance import Disturbance, bursts
from vlamem.sim.suites.tabletop.demonstrations import plan
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.render import CAMERAS
from vlamem.sim.suites.tabletop.scene import CONTROL_HZ

_PART_EPISODES = 20
_DONE = "complete"
REPO_ID = "vlamem/tabletop"


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

    For the rest see `Recorded`; all cameras when none is named. Raises FileExistsError when the joined dataset is
    already there, ValueError for an unknown camera, SuiteError for parameters that a task does not take.
    """
    from lerobot.datasets.aggregate import aggregate_datasets

    what = Recorded(size, tuple(cameras) or tuple(CAMERAS), parameters or {}, disturbed)
    final = out / "dataset"
    if final.exists():
        raise FileExistsError(f"{final} exists already: record into another directory, or delete it first")
    todo = list(plan(episodes, 0, 1))
    parts = [todo[i : i + _PART_EPISODES] for i in range(0, len(todo), _PART_EPISODES)]
    counts = [0, 0]
    roots = []
    for number, part in enumerate(parts):
        root = out / f"part-{number:04d}"
        roots.append(root)
        if (root / _DONE).exists():
            counts[0] += len(part)
            progress(*counts)
            continue
        if root.exists():
            shutil.rmtree(root)
        _write_part(part, root, what, counts, progress)
        (root / _DONE).touch()
    aggregate_datasets(
        repo_ids=[f"{REPO_ID}-{i}" for i in range(len(roots))],
        aggr_repo_id=REPO_ID,
        roots=roots,
        aggr_root=final,
    )
    for root in roots:
        shutil.rmtree(root)


def _write_part(
    part: list[tuple[str, int]],
    root: Path,
    what: Recorded,
    counts: list[int],
    progress: Callable[[int, int], None],
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from vlamem.sim.suites.tabletop import SUITE

    dataset: Any = None
    for name, episode in part:
        env = SUITE.make(name, image_size=what.size, **what.parameters)
        try:
            frames = _episode(env, episode, what)
        finally:
            env.close()
        if frames is None:
            counts[1] += 1
        else:
            if dataset is None:
                table = features(what, len(frames[0]["observation.simulator_state"]))
                dataset = LeRobotDataset.create(
                    repo_id=REPO_ID, fps=CONTROL_HZ, features=table, root=root, robot_type="panda"
                )
            for frame in frames:
                dataset.add_frame(frame)
            dataset.save_episode()
            counts[0] += 1
        progress(*counts)
    if dataset is None:
        raise RuntimeError(f"no demonstration of {part[0][0]} and the following episodes succeeded: nothing to write")
    dataset.finalize()


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
        command = action.copy()
        for first, last, offset in pushes:
            if first <= env.task.now < last:
                command[:3] += offset
        seen, _, terminated, truncated, info = env.step(np.clip(command, -1, 1))
        frames.append({**frame, "next.success": np.array([info["success"]])})
        if terminated or truncated:
            return frames if info["success"] else None
