"""What lerobot's own LIBERO environment shows, read with the conventions of this project's suites.

lerobot's environment (`--env.type=libero`, after its LiberoProcessorStep) gives images turned by 180 degrees, which is
mirrored against upright since the benchmark's renderer has its first row at the bottom; the hand's position in the
world; the axis-angle of the arm's flange; and the positions of both finger joints. Here images are upright, the
position is from the centre of the table's or floor's surface, the orientation is the hand's, as a quaternion, and the
gripper is one opening.
"""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from vlamem.core.observation import Observation
from vlamem.sim.suites.libero.assets import find_root
from vlamem.sim.suites.libero.catalogue import MAX_STEPS, catalogue

CAMERAS = {"image": "agentview", "image2": "wrist"}
"""lerobot's name of a camera, and this project's."""
STATE_SIZE = 8
"""Position (3), axis-angle (3) and finger joints (2)."""
ORIGINS = {
    "LIBERO_Floor_Manipulation": (0.0, 0.0, 0.0),
    "LIBERO_Tabletop_Manipulation": (0.0, 0.0, 0.90),
    "LIBERO_Kitchen_Tabletop_Manipulation": (0.0, 0.0, 0.90),
    "LIBERO_Living_Room_Tabletop_Manipulation": (0.0, 0.0, 0.41),
    "LIBERO_Coffee_Table_Manipulation": (0.0, 0.0, 0.41),
    "LIBERO_Study_Tabletop_Manipulation": (-0.2, 0.0, 0.867),
}
"""Centre of the surface in the world [m], by the kind of scene that a task file names; `Simulation.origin` is the same.
"""
_SCENE = re.compile(r"\(define\s+\(problem\s+(\w+)\)")
_HAND_IN_FLANGE = Rotation.from_rotvec([0.0, 0.0, -np.pi / 2])


class LeRobotViewError(ValueError):
    """An observation that is not one of lerobot's LIBERO environment; the message says what is different."""


@functools.cache
def origins() -> Mapping[str, tuple[float, float, float]]:
    """Origin of the scene by the sentence of a task, for all tasks of the five suites.

    A sentence that several suites have is of one origin in all of them. Raises LiberoMissingError without the
    benchmark, LeRobotViewError for a task file of an unknown kind of scene.
    """
    root, found = find_root(), dict[str, tuple[float, float, float]]()
    for suite in MAX_STEPS:
        for task, info in catalogue(suite).items():
            named = _SCENE.search((root / "bddl_files" / suite / f"{task}.bddl").read_text(encoding="utf-8"))
            if named is None or named[1] not in ORIGINS:
                raise LeRobotViewError(f"the scene of task '{task}' is {named and named[1]}, known are {list(ORIGINS)}")
            here = ORIGINS[named[1]]
            if found.setdefault(info.instructions[0], here) != here:
                raise LeRobotViewError(f"'{info.instructions[0]}' is a task of two scenes with different origins")
    return found


class LiberoView:
    """A dataset of lerobot's LIBERO, read with the conventions of this project's suites: a DatasetView."""

    cameras: Mapping[str, str] = CAMERAS
    state_size = STATE_SIZE

    def __init__(self, size: int) -> None:
        """`size` is the policy's height and width of images [pixels]."""
        self._size = size

    def pictures(self, frames: UInt8[NDArray[np.uint8], "N H W 3"]) -> UInt8[NDArray[np.uint8], "N size size 3"]:
        """Upright, and of the policy's size."""
        return _resized(frames[:, :, ::-1], self._size)

    def state(
        self, state: Float[NDArray[np.float32], "T 8"], sentences: Sequence[str]
    ) -> Float[NDArray[np.float32], "T 8"]:
        """Hand position, quaternion and opening. Raises LeRobotViewError for a sentence that no task has."""
        _check_known(sentences)
        return proprioception(state, np.array([origins()[sentence] for sentence in sentences]))


def observation_from_lerobot(
    images: Mapping[str, UInt8[NDArray[np.uint8], "B H W 3"]],
    state: Float[NDArray[np.float32], "B 8"],
    sentences: Sequence[str],
    size: int,
) -> Observation:
    """lerobot's images `image` and `image2`, its state and its sentences, as an observation of a LIBERO suite.

    Images of another size are brought to `size` x `size` pixels, with a filter against aliasing. Raises
    LeRobotViewError for other cameras, a state of another size and a sentence that no task has.
    """
    if set(images) != set(CAMERAS):
        raise LeRobotViewError(
            f"the environment gives images {sorted(images)}, lerobot's LIBERO gives {sorted(CAMERAS)}: use "
            "--env.type=libero without camera_name_mapping, or leave out --policy.observation=libero"
        )
    if state.shape != (len(sentences), STATE_SIZE):
        raise LeRobotViewError(
            f"observation.state is {list(state.shape)}, lerobot's LIBERO gives [{len(sentences)}, {STATE_SIZE}]: use "
            "--env.obs_type=pixels_agent_pos, or leave out --policy.observation=libero"
        )
    _check_known(sentences)
    return Observation(
        {CAMERAS[name]: _resized(image[:, :, ::-1], size) for name, image in images.items()},
        proprioception(state, np.array([origins()[sentence] for sentence in sentences])),
        tuple(sentences),
    )


def proprioception(
    state: Float[NDArray[np.float32], "B 8"], origin: Float[NDArray[np.float64], "B 3"]
) -> Float[NDArray[np.float32], "B 8"]:
    """Hand position from `origin` [m], orientation (w, x, y, z; the largest > 0), gripper opening [m]."""
    body = state.astype(np.float64)
    quaternion = (Rotation.from_rotvec(body[:, 3:6]) * _HAND_IN_FLANGE).as_quat()[:, [3, 0, 1, 2]]
    leading = np.take_along_axis(quaternion, np.abs(quaternion).argmax(1)[:, None], axis=1)
    opening = body[:, 6:7] - body[:, 7:8]
    parts = [body[:, :3] - origin, quaternion * np.sign(leading), opening]
    found: NDArray[np.float32] = np.concatenate(parts, 1).astype(np.float32)
    return found


def _check_known(sentences: Sequence[str]) -> None:
    unknown = [sentence for sentence in sentences if sentence not in origins()]
    if unknown:
        raise LeRobotViewError(
            f"'{unknown[0]}' is no sentence of LIBERO's five suites, so that the height of its table is not known: "
            "observations of other benchmarks cannot be read as libero"
        )


def _resized(images: UInt8[NDArray[np.uint8], "B H W 3"], size: int) -> UInt8[NDArray[np.uint8], "B size size 3"]:
    if images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    if images.shape[1] != images.shape[2]:
        raise LeRobotViewError(
            f"images are {images.shape[1]} x {images.shape[2]}, the policy reads {size} x {size}: give "
            f"--env.observation_height={size} --env.observation_width={size}"
        )
    import torch

    planes = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    scaled = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    found: NDArray[np.uint8] = scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return found
