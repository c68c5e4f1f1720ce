"""Where to grasp a thing from above: from the points that fill it and those of all around it.

The hand points down. At some depth below the thing's top, along some direction across it, there must be a stretch of
matter that fits between the fingers, room beside it for the fingers, and room above for the palm.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_OPEN = 0.040
"""Half of the distance between the open fingers [m]."""
_FINGER = 0.019
"""Thickness of a finger [m]."""
_HALF_WIDTH = 0.011
"""Half of a finger's width [m]."""
_TIP = 0.0100
"""How far the tips reach below the grasp point [m]."""
_PALM = 0.031
"""Height of the palm over the grasp point [m]."""
_WIDEST = 0.070
_NARROWEST_GAP = 0.022
"""Matter with less than this between belongs together, since no finger fits in [m]."""
_WALL, _OBLIQUE = 0.015, 6.0
"""Walls are thinner than this; across one obliquely the fingers slip, which costs this much a metre."""
_ANGLES = 24


@dataclass(frozen=True)
class Grasp:
    """A grasp from above.

    Attributes:
        point: where the grasp point of the hand goes, in the thing's own frame [m].
        closing: unit vector along which the fingers close, in the thing's own frame.
        width: of what is between the fingers [m].
        score: smaller is better; above 1 something is in the way.
    """

    point: Float[np.ndarray, "3"]
    closing: Float[np.ndarray, "3"]
    width: float
    score: float


def _stretches(values: Float[np.ndarray, "n"]) -> list[tuple[float, float]]:
    """Runs of sorted values without a gap for a finger."""
    ordered = np.sort(values)
    cuts = np.flatnonzero(np.diff(ordered) > _NARROWEST_GAP)
    firsts, lasts = np.r_[0, cuts + 1], np.r_[cuts, len(ordered) - 1]
    return [(float(ordered[a]), float(ordered[b])) for a, b in zip(firsts, lasts, strict=True)]


def _fills_finger(window: Float[np.ndarray, "n 2"], low: float, high: float, offset: float) -> bool:
    """Whether a stretch lies before both halves of the fingers; a corner before one of them slips out."""
    across = window[(window[:, 0] >= low) & (window[:, 0] <= high), 1] - offset
    return bool(across.min() < -0.5 * _HALF_WIDTH and across.max() > 0.5 * _HALF_WIDTH)


def _in_the_way(points: Float[np.ndarray, "n 3"], fingers: float) -> float:
    """Number of points inside the open fingers, palm and forearm; columns: along closing, across, height over grasp."""
    along, across, up = np.abs(points[:, 0]), np.abs(points[:, 1]), points[:, 2]
    finger = (along > fingers) & (along < fingers + _FINGER) & (across < _HALF_WIDTH + 0.003) & (up > -_TIP)
    palm = (along < 0.107) & (across < 0.036) & (up > _PALM - 0.003)
    return float((finger | palm).sum())


def plan_grasps(
    thing: Float[np.ndarray, "n 3"],
    others: Float[np.ndarray, "m 3"],
    position: Float[np.ndarray, "3"],
    rotation: Float[np.ndarray, "3 3"],
    closing_now: Float[np.ndarray, "3"],
    surface: float,
    strain: Callable[[Float[np.ndarray, "3"]], float],
    deepest: float = 0.027,
    across_only: Float[np.ndarray, "2"] | None = None,
) -> list[Grasp]:
    """Grasps of `thing`, the best first; empty when nothing about it fits between the fingers.

    Args:
        thing, others: points in the world frame.
        position, rotation: pose of the thing's own frame.
        closing_now: the hand's closing axis as it is, to turn little.
        surface: height that the finger tips must stay above.
        strain: what it costs to have the hand at a point.
        deepest: largest depth of the grasp point below the top.
        across_only: closing axes are to be parallel to this direction (within 20 degrees).
    """
    top, bottom = float(thing[:, 2].max()), float(thing[:, 2].min())
    centre = (thing[:, :2].max(0) + thing[:, :2].min(0)) / 2
    near = others[np.linalg.norm(others[:, :2] - centre, axis=1) < 0.25]
    near = near[near[:, 2] > bottom - 0.02]
    upright = abs(closing_now[2]) < 0.7
    now = np.arctan2(closing_now[1], closing_now[0]) if upright else np.pi / 2
    found: list[Grasp] = []
    lowest = max(surface + _TIP + 0.002, bottom + 0.004)
    heights = {max(top - depth, lowest) for depth in (deepest, 0.75 * deepest, 0.5 * deepest)}
    for height in sorted(heights):
        band = thing[np.abs(thing[:, 2] - height) < 0.008]
        if len(band) < 3:
            continue
        for angle in np.arange(_ANGLES) * np.pi / _ANGLES:
            along = np.array([np.cos(angle), np.sin(angle)])
            if across_only is not None and abs(float(along @ across_only)) < 0.94:
                continue
            side = np.array([-along[1], along[0]])
            flat = np.column_stack([(band[:, :2] - centre) @ along, (band[:, :2] - centre) @ side])
            for offset in (0.0, -0.012, 0.012, -0.024, 0.024):
                window = flat[np.abs(flat[:, 1] - offset) < _HALF_WIDTH]
                if len(window) < 2:
                    continue
                for low, high in _stretches(window[:, 0]):
                    if high - low > _WIDEST or (offset and not _fills_finger(window, low, high, offset)):
                        continue
                    middle = (low + high) / 2
                    at = np.array([*(centre + middle * along + offset * side), height])
                    score = _score(thing, near, at, along, side) + strain(at)
                    turn = (angle - now + np.pi / 2) % np.pi - np.pi / 2
                    score += 0.10 * abs(turn) + 3.0 * abs(offset) + 1.0 * (height - bottom - _TIP) + 2.0 * abs(middle)
                    score += 2.0 * max(0.0, high - low - 0.060)
                    closing = rotation.T @ np.array([*along, 0.0])
                    found.append(Grasp(rotation.T @ (at - position), closing, high - low, score))
    thinnest = min((grasp.width for grasp in found), default=0.0)
    return sorted(found, key=lambda g: g.score + (_OBLIQUE * (g.width - thinnest) if thinnest < _WALL else 0.0))


def _score(
    thing: Float[np.ndarray, "n 3"],
    near: Float[np.ndarray, "m 3"],
    at: Float[np.ndarray, "3"],
    along: Float[np.ndarray, "2"],
    side: Float[np.ndarray, "2"],
) -> float:
    total = 0.0
    for points, price in ((thing, 0.3), (near, 0.3)):
        relative = points - at
        turned = np.column_stack([relative[:, :2] @ along, relative[:, :2] @ side, relative[:, 2]])
        total += price * _in_the_way(turned, _OPEN - 0.003)
    return total
