"""Demonstrations as a LeRobotDataset (format v3): every tick, both cameras as video, and the simulator's state.

The dataset is recorded in parts, each a complete dataset; a killed recording loses the part it was at. The parts are
joined at the end.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.sim.suites.tabletop.demonstrations import plan
from vlamem.sim.suites.tabletop.env import TabletopEnv
from vlamem.sim.suites.tabletop.render import CAMERAS
from vlamem.sim.suites.tabletop.scene import CONTROL_HZ

_PART_EPISODES = 20
_DONE = "complete"
REPO_ID = "vlamem/tabletop"


def features(size: int, state_size: int) -> dict[str, dict[str, Any]]:
    """LeRobot's feature table of the tabletop suite; `state_size` is that of MuJoCo's qpos and qvel together."""
    image = {"dtype": "video", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    state = ["x", "y", "z", "qw", "qx", "qy", "qz", "gripper_opening"]
    action = ["dx", "dy", "dz", "rx", "ry", "rz", "gripper"]
    return {
        **{f"observation.images.{name}": image for name in CAMERAS},
        "observation.state": {"dtype": "float32", "shape": (8,), "names": state},
        "observation.simulator_state": {"dtype": "float32", "shape": (state_size,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": action},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    }


def write_lerobot(episodes: Mapping[str, int], out: Path, size: int, progress: Callable[[int, int], None]) -> None:
    """Records `episodes` demonstrations of each task into `out`/dataset; resumable.

    Raises FileExistsError when the joined dataset is already there, ValueError for an unknown task.
    """
    from lerobot.datasets.aggregate import aggregate_datasets

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
        _write_part(part, root, size, counts, progress)
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
    part: list[tuple[str, int]], root: Path, size: int, counts: list[int], progress: Callable[[int, int], None]
) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from vlamem.sim.suites.tabletop import SUITE

    dataset: Any = None
    for name, episode in part:
        env = SUITE.make(name, image_size=size)
        try:
            frames = _episode(env, episode)
        finally:
            env.close()
        if frames is None:
            counts[1] += 1
        else:
            if dataset is None:
                table = features(size, len(frames[0]["observation.simulator_state"]))
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


def _episode(env: TabletopEnv, episode: int) -> list[dict[str, Any]] | None:
    seen, _ = env.reset(options={"episode": episode, "split": "train"})
    frames = []
    while True:
        action = env.expert_action()
        state = np.concatenate([env.scene.data.qpos, env.scene.data.qvel]).astype(np.float32)
        frame = {
            **{f"observation.images.{name}": seen[name] for name in CAMERAS},
            "observation.state": seen["proprioception"],
            "observation.simulator_state": state,
            "action": action,
            "task": seen["instruction"],
        }
        seen, _, terminated, truncated, info = env.step(action)
        frames.append({**frame, "next.success": np.array([info["success"]])})
        if terminated or truncated:
            return frames if info["success"] else None
