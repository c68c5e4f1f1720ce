"""How the scripted experts move the hand: straight to a pose, and over obstacles on the way."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.simulation import Simulation

OPEN, CLOSED = -1.0, 1.0
GAIN = 22.0
"""Translation action per metre of error."""
TURN_GAIN = 1.6
"""Rotation action per radian of error."""
_MOST_TURN = 0.6
_SHOULDER, _ARM = 0.333, 0.675
"""Height of the Panda's shoulder over its base, and from there to the wrist of the nearly stretched arm [m]."""
_EASY = 0.60
"""Distance from shoulder to wrist that needs no stretching [m]."""
_WRIST_OUT, _WRIST_UP = 0.088, 0.210
"""The wrist behind and above the grasp point of a hand that points down [m]."""


def rotation_vector(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Axis times angle [rad] of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(rotation).as_rotvec(), np.float64)


def pointing_down(closing: Float[np.ndarray, "3"], now: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """Orientation of a hand that points down and closes along `closing` or against it, whichever turns `now` less."""
    flat = np.array([closing[0], closing[1], 0.0])
    flat /= np.linalg.norm(flat)
    if flat @ now[:, 0] < 0:
        flat = -flat
    down = np.array([0.0, 0.0, -1.0])
    return np.column_stack([flat, np.cross(down, flat), down])


def pointing(ahead: Float[np.ndarray, "3"], closing: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Orientation of a hand that points `ahead` and closes along the part of `closing` that is across it."""
    forward = ahead / np.linalg.norm(ahead)
    across = closing - (closing @ forward) * forward
    across = across / np.linalg.norm(across)
    return np.column_stack([across, np.cross(forward, across), forward])


def highest_reachable(simulation: "Simulation", xy: Float[np.ndarray, "2"]) -> float:
    """Greatest height of a hand that points down over `xy`; beyond it the stretched arm tilts the hand and stops."""
    away = float(np.linalg.norm(xy - simulation.base[:2])) - _WRIST_OUT
    square = _ARM**2 - away**2
    lift = float(np.sqrt(square)) if square > 0 else 0.0
    return float(simulation.base[2]) + _SHOULDER - _WRIST_UP + lift


def strain(simulation: "Simulation", position: Float[np.ndarray, "3"]) -> float:
    """What it costs to have the hand at a point: 0, and more as the arm has to stretch."""
    out = float(np.linalg.norm(position[:2] - simulation.base[:2])) - _WRIST_OUT
    up = float(position[2] - simulation.base[2]) + _WRIST_UP - _SHOULDER
    return 8.0 * max(0.0, float(np.hypot(out, up)) - _EASY)


def within_reach(simulation: "Simulation", position: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """`position`, or the point at its height and bearing that the arm can reach."""
    way = position[:2] - simulation.base[:2]
    up = position[2] + _WRIST_UP - _SHOULDER - simulation.base[2]
    furthest = _WRIST_OUT + float(np.sqrt(max(_ARM**2 - up**2, 0.2**2)))
    share = min(1.0, furthest / max(float(np.linalg.norm(way)), 1e-6))
    return np.array([*(simulation.base[:2] + share * way), position[2]])


def towards(
    simulation: "Simulation",
    position: Float[np.ndarray, "3"],
    rotation: Float[np.ndarray, "3 3"] | None,
    gripper: float,
    slow: float = 1.0,
) -> Float[np.ndarray, "7"]:
    """Straight to a pose of the hand; `slow` bounds the entries, the direction stays. None keeps the orientation."""
    step = (position - simulation.hand) * GAIN
    step = step / max(1.0, float(np.abs(step).max()) / slow)
    turn: Float[np.ndarray, 3] = np.zeros(3)
    if rotation is not None:
        wanted = rotation_vector(rotation @ simulation.hand_rotation.T) * TURN_GAIN
        turn = wanted / max(1.0, float(np.abs(wanted).max()) / _MOST_TURN)
    return np.array([*step, *turn, gripper])


def over(
    simulation: "Simulation",
    position: Float[np.ndarray, "3"],
    rotation: Float[np.ndarray, "3 3"] | None,
    gripper: float,
    travel: float,
    mouth: float = 0.008,
    slope: float = 1.6,
) -> Float[np.ndarray, "7"]:
    """To a pose from above: rises to height `travel`, crosses, and comes down near the axis only, turned already."""
    hand = simulation.hand
    away = float(np.linalg.norm(position[:2] - hand[:2]))
    twist = 0.0 if rotation is None else float(np.linalg.norm(rotation_vector(rotation @ simulation.hand_rotation.T)))
    height = position[2] + slope * max(0.0, away - mouth) + 0.25 * max(0.0, twist - 0.12)
    height = min(max(travel, position[2]), height)
    if away < 0.12:
        height = max(position[2], min(height, highest_reachable(simulation, position[:2])))
        goal = np.array([*position[:2], height])
    else:
        goal = within_reach(simulation, np.array([*position[:2], height]))
    too_low = height - hand[2]
    if too_low > 0.012 and away > 0.03:
        sideways = float(np.clip(1.0 - too_low / 0.05, 0.0, 1.0))
        goal[:2] = hand[:2] + (goal[:2] - hand[:2]) * sideways
    return towards(simulation, goal, rotation, gripper)


def turned(rotation: Float[np.ndarray, "3 3"], simulation: "Simulation") -> float:
    """Angle between the hand and an orientation [rad]."""
    return float(np.linalg.norm(rotation_vector(rotation @ simulation.hand_rotation.T)))
