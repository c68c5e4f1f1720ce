"""Motions of the scripted experts: functions of the state alone, so that they recover from anywhere."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.tabletop.elements import BLOCK_HALF

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.scene import Scene

TRAVEL = 0.11
"""Height at which the hand travels over the table [m]."""
GAIN = 22.0
"""Action per metre of error."""
OPEN, CLOSED = -1.0, 1.0
_GRASP_HEIGHT = 0.018
_HELD_MAX = 0.06


def action(hand: Float[np.ndarray, "3"], goal: Float[np.ndarray, "3"], gripper: float) -> Float[np.ndarray, "7"]:
    """Straight towards `goal`, the longest component clipped to 1 so that the direction stays."""
    step = (goal - hand) * GAIN
    step = step / max(1.0, float(np.abs(step).max()))
    return np.array([*step, 0.0, 0.0, 0.0, gripper])


def funnel(
    hand: Float[np.ndarray, "3"],
    over: Float[np.ndarray, "2"],
    low: float,
    gripper: float,
    travel: float = TRAVEL,
    mouth: float = 0.010,
) -> Float[np.ndarray, "7"]:
    """Above `over` at travel height, and down to height `low` only near its axis.

    The hand rises before it crosses the table, and slows sideways while it is too low.
    """
    away = float(np.linalg.norm(over - hand[:2]))
    height = min(max(travel, low), low + 1.6 * max(0.0, away - mouth))
    too_low = max(0.0, height - hand[2])
    goal = np.array([*over, height])
    if too_low > 0.015 and away > 0.03:
        sideways = float(np.clip(1.0 - too_low / 0.06, 0.0, 1.0))
        goal[:2] = hand[:2] + (over - hand[:2]) * sideways
    return action(hand, goal, gripper)


def wait(scene: "Scene", home: Float[np.ndarray, "3"], gripper: float = CLOSED) -> Float[np.ndarray, "7"]:
    """Rises and returns to `home`, then stays."""
    hand = scene.hand
    away = float(np.linalg.norm(home[:2] - hand[:2]))
    goal = home.copy()
    if hand[2] < 0.08 and away > 0.03:
        goal[:2] = hand[:2]
    return action(hand, goal, gripper)


def touch(scene: "Scene", target: Float[np.ndarray, "3"], top: float) -> Float[np.ndarray, "7"]:
    """Down onto `target` until the closed fingers meet its top at height `top`."""
    return funnel(scene.hand, target[:2], top - 0.012, CLOSED, travel=top + 0.07)


def grasped(scene: "Scene", block: int) -> bool:
    """Whether the fingers are closed on the block."""
    return f"block{block}" in scene.touched() and 0.02 < scene.opening < _HELD_MAX and _beside(scene, block)


def _beside(scene: "Scene", block: int) -> bool:
    return float(np.linalg.norm(scene.hand - scene.block(block))) < 0.035


def pick_and_place(
    scene: "Scene", block: int, goal: Float[np.ndarray, "2"], drop: float, reached: float = 0.02
) -> Float[np.ndarray, "7"]:
    """Grasps the block, carries it over `goal`, lowers it to height `drop` and lets go."""
    hand, at = scene.hand, scene.block(block)
    at_goal = float(np.linalg.norm(at[:2] - goal)) < reached
    if grasped(scene, block):
        offset = at[:2] - hand[:2]
        if at_goal and at[2] < drop + 0.014:
            return action(hand, hand, OPEN)
        return funnel(hand, goal - offset, drop + hand[2] - at[2], CLOSED, mouth=0.008)
    if at_goal and at[2] < drop + 0.02:
        return action(hand, np.array([*hand[:2], 0.16]), OPEN)
    if scene.opening < 0.06 and hand[2] < TRAVEL - 0.02 and not (_beside(scene, block) and scene.opening > 0.035):
        return action(hand, np.array([*hand[:2], TRAVEL]), OPEN)
    if np.linalg.norm(at[:2] - hand[:2]) < 0.012 and hand[2] < at[2] + 0.006:
        return action(hand, np.array([*at[:2], at[2] - 0.002]), CLOSED)
    return funnel(hand, at[:2], min(_GRASP_HEIGHT, at[2]), OPEN)


def push(scene: "Scene", block: int, goal: Float[np.ndarray, "2"]) -> Float[np.ndarray, "7"]:
    """Gets behind the block, comes down and pushes it along the line to `goal`."""
    hand, at = scene.hand, scene.block(block)[:2]
    way = goal - at
    far = float(np.linalg.norm(way))
    if far < 0.012:
        return action(hand, np.array([*hand[:2], 0.16]), CLOSED)
    along = way / far
    behind = at - along * (BLOCK_HALF + 0.034)
    offset = hand[:2] - at
    ahead = float(offset @ along)
    aside = float(np.linalg.norm(offset - ahead * along))
    low = 0.022
    if hand[2] < 0.035 and ahead < -BLOCK_HALF and aside < 0.014 + 0.1 * max(0.0, -ahead - 0.05):
        line = at - along * (BLOCK_HALF - 0.004) + along * min(far, 0.05)
        correction = -(offset - ahead * along) * 1.0
        return action(hand, np.array([*(line + correction), low]), CLOSED)
    return funnel(hand, behind, low, CLOSED, travel=0.09)


def press(scene: "Scene", button: Float[np.ndarray, "3"], lit: bool) -> Float[np.ndarray, "7"]:
    """Down on the button until it lights, then up again until it is dark."""
    hand = scene.hand
    if lit:
        return action(hand, np.array([*button[:2], 0.14]), CLOSED)
    return funnel(hand, button[:2], 0.022, CLOSED, travel=0.11)
