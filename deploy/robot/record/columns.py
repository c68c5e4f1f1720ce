"""What a recorded episode holds: the features of the dataset, and a frame of it from a row."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlamem.deploy.robot.record.rows import ActedBy, Row
from vlamem.deploy.robot.robot_file import RobotFile, RobotFileError

IMAGES, STATE, ACTION, SUCCESS, LABELLED = (
    "observation.images.", "observation.state", "action", "next.success", "labelled"
)  # fmt: skip
COLUMNS = {
    SUCCESS: "bool",  # in an episode's last frame: whether it was labelled a success
    LABELLED: "bool",  # in an episode's last frame: whether anyone labelled it; without a label its outcome is unknown
    "acted_by": "int64",  # 0 the policy, 1 the operator, who pressed stop, 2 rest, 3 a person with a teleoperator
    "intervention": "bool",  # whether a person had the arm (acted_by is 3), as lerobot calls it
    "planned": "bool",  # whether a chunk was planned from this frame
    "memory.replied": "bool",  # whether the server's reply to this frame came; the rest is 0 where it did not
    "memory.wrote": "bool",
    "memory.gate": "float32",  # 0 to 1; above 1/2 the memory is written; the largest of several memories
    "memory.confidence": "float32",  # 0 to 1, likewise
    "memory.weight": "float32",  # 0 to 1, of the proposal that the chunk was sampled with; 0 where memory abstained
    "session.episode": "int64",  # number of the episode in the robot's session, as in the server's traces
    "session.step": "int64",  # policy step of the frame; one that is missing was not recorded
}
"""What is recorded beside images, state and action."""


def rate_of(robot_file: RobotFile) -> int:
    """Frames a second. Raises RobotFileError for a rate that the data set's format cannot have."""
    if robot_file.policy_hz != round(robot_file.policy_hz):
        raise RobotFileError(
            f"policy_hz {robot_file.policy_hz:g} of robot '{robot_file.name}': a LeRobotDataset has a whole number of "
            "frames a second, so that nothing can be recorded: leave --record out"
        )
    return round(robot_file.policy_hz)


def features_of(robot_file: RobotFile, sizes: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """The table of features of a robot whose cameras have these sizes [H, W]."""
    images = {
        f"{IMAGES}{camera}": {
            "dtype": "video", "shape": (*sizes[camera], 3), "names": ["height", "width", "channels"]
        }
        for camera in robot_file.cameras
    }  # fmt: skip
    numbers = {
        STATE: (robot_file.proprioception, list(robot_file.state_keys) or None),
        ACTION: (robot_file.size, list(robot_file.action_keys) or _entries(robot_file)),
    }
    return (
        images
        | {name: {"dtype": "float32", "shape": (size,), "names": names} for name, (size, names) in numbers.items()}
        | {name: {"dtype": kind, "shape": (1,), "names": None} for name, kind in COLUMNS.items()}
    )


def frame_of(row: Row, robot_file: RobotFile) -> dict[str, Any]:
    """A frame of the dataset, but for its label."""
    seen, reply = row.frame.observation, row.reply
    gate = None if reply is None else reply.gate
    values = {
        "acted_by": int(row.acted_by),
        "intervention": row.acted_by is ActedBy.TELEOPERATOR,
        "planned": reply is not None and reply.chunk is not None,
        "memory.replied": gate is not None,
        "memory.wrote": reply is not None and reply.wrote,
        "memory.gate": gate or 0.0,
        "memory.confidence": 0.0 if reply is None else reply.confidence,
        "memory.weight": 0.0 if reply is None else reply.weight,
        "session.episode": row.frame.episode,
        "session.step": row.frame.step,
    }
    return (
        {f"{IMAGES}{camera}": seen.images[camera] for camera in robot_file.cameras}
        | {STATE: np.asarray(seen.proprioception, np.float32), ACTION: np.asarray(row.action, np.float32)}
        | {name: np.array([value], COLUMNS[name]) for name, value in values.items()}
        | {"task": row.frame.instruction}
    )


def label_of(success: bool | None) -> dict[str, Any]:
    """The label of an episode, for its last frame; None where it has none."""
    return {SUCCESS: np.array([bool(success)]), LABELLED: np.array([success is not None])}


def _entries(robot_file: RobotFile) -> list[str]:
    """Names of the entries of an action where the robot's file has none."""
    return [part.name if part.size == 1 else f"{part.name}.{i}" for part in robot_file.parts for i in range(part.size)]
