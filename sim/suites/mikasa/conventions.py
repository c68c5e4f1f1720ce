"""This project's actions and proprioception in the benchmark's own, and back.

Its controller takes [7] in [-1, 1]: translation in the base frame, where 1 asks for 0.1 m and the hand gets some 0.04 m
of that in a control step; Euler angles x, y, z times -0.1 rad, as it multiplies rotations by their lower bound; and a
gripper that opens at +1.
"""

import numpy as np
from jaxtyping import Float

from vlamem.core.spec import ActionComponent, ActionSpec

DELTA_POSE = ActionSpec(
    (
        ActionComponent("translation", 3, "xyz", "delta", "base", "0.1 m"),
        ActionComponent("rotation", 3, "axis_angle", "delta", "base", "0.1 rad"),
        ActionComponent("gripper", 1, "gripper", "absolute", "none", "-1 open, +1 closed"),
    )
)
"""ManiSkill's pd_ee_delta_pose of the Panda in this project's signs."""
CONTROL_MODE = "pd_ee_delta_pose"
TURN = 0.1
"""Rotation of the value 1 [rad]."""
CAMERAS = ("base_camera", "hand_camera")
"""In the order in which the benchmark stacks their channels."""


def benchmark_action(action: Float[np.ndarray, "7"]) -> Float[np.ndarray, "7"]:
    """An action of this project as the benchmark's controller takes it.

    A rotation of more than 0.1 rad is shortened to it, as the controller does with its own.
    """
    from scipy.spatial.transform import Rotation

    turn = np.asarray(action[3:6], np.float64)
    turn = turn / max(1.0, float(np.linalg.norm(turn)))
    euler = Rotation.from_rotvec(TURN * turn).as_euler("XYZ")
    return np.concatenate([action[:3], -euler / TURN, [-action[6]]]).astype(np.float32)


def project_action(action: Float[np.ndarray, "7"]) -> Float[np.ndarray, "7"]:
    """An action of the benchmark, such as one of its demonstrations, as this project takes it."""
    from scipy.spatial.transform import Rotation

    euler = np.asarray(action[3:6], np.float64)
    euler = euler / max(1.0, float(np.linalg.norm(euler)))
    turn = Rotation.from_euler("XYZ", -TURN * euler).as_rotvec() / TURN
    return np.concatenate([action[:3], turn, [-action[6]]]).astype(np.float32)


def proprioception(tcp_pose: Float[np.ndarray, "7"], fingers: Float[np.ndarray, "2"]) -> Float[np.ndarray, "8"]:
    """Hand position from the centre of the table's surface [m], orientation w x y z with its largest entry above 0,
    gripper opening [m].
    """
    quaternion = tcp_pose[3:] / np.linalg.norm(tcp_pose[3:])
    quaternion = quaternion * np.sign(quaternion[np.argmax(np.abs(quaternion))])
    return np.array([*tcp_pose[:3], *quaternion, fingers.sum()], np.float32)


def benchmark_proprioception(pose: Float[np.ndarray, "8"]) -> Float[np.ndarray, "7"]:
    """What the benchmark tells its policies: position, roll, pitch and yaw [rad], gripper opening."""
    from scipy.spatial.transform import Rotation

    w, x, y, z = pose[3:7]
    return np.array([*pose[:3], *Rotation.from_quat([x, y, z, w]).as_euler("xyz"), pose[7]], np.float32)
