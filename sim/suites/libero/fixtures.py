"""Turning a stove's knob, opening and closing drawers and doors, with privileged state."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.libero.geometry import Geometry, highest_near
from vlamem.sim.suites.libero.motion import CLOSED, OPEN, over, pointing, pointing_down, towards, turned

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.simulation import Simulation

_DOWN = np.array([0.0, 0.0, -1.0])
_KNOB_TURN = 0.45
"""How far ahead of the knob the hand is turned [rad]."""
_PULL, _PRESS = 0.06, 0.02
"""How far ahead of and below a spot on a flat thing the hand aims that drags it; pressed harder, it sticks [m]."""
_AHEAD = 0.1
"""Where that spot is, ahead of the middle, as a share of the thing's width."""
_TIP = 0.010
"""How far the finger tips reach below the grasp point [m]."""
_NEAR, _HINDERED = 0.016, 15
"""From this near the fingers reach round a handle [m]; they close when something keeps them there for so many ticks."""
_RIDGE = 0.020
"""The ridge of a knob stands higher than this over its base [m]."""


class TurnKnob:
    """Grasps the ridge of a knob from above and turns the hand until the stove is on."""

    def __init__(self, simulation: "Simulation", geometry: Geometry, stove: str, on: Callable[[], bool]) -> None:
        self._simulation, self._on = simulation, on
        joint = simulation.problem.get_object(stove).joints[0]
        self._body = int(simulation.model.joint(joint).bodyid[0])
        self._geometry = geometry
        self._closed_for = 0

    def done(self) -> bool:
        """The stove is on and the hand has risen."""
        return bool(self._on() and self._simulation.hand[2] > self._ridge()[0][2] + 0.08)

    def _ridge(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Where the grasp point goes, and the direction across the ridge."""
        base, _ = self._geometry.pose(self._body)
        points = self._geometry.points({self._body}, fine=True)
        ridge = points[points[:, 2] > base[2] + _RIDGE]
        flat = ridge[:, :2] - ridge[:, :2].mean(0)
        _, directions = np.linalg.eigh(flat.T @ flat)
        across = np.array([*directions[:, 0], 0.0])
        return np.array([*base[:2], float(ridge[:, 2].max()) - 0.014]), across

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        simulation = self._simulation
        point, across = self._ridge()
        rotation = pointing_down(across, simulation.hand_rotation)
        if self._on():
            return towards(simulation, simulation.hand + np.array([0.0, 0.0, 0.1]), None, OPEN)
        first, second = self._geometry.touching({self._body})
        at = np.linalg.norm(point - simulation.hand) < 0.012 and turned(rotation, simulation) < 0.12
        if at or self._closed_for:
            self._closed_for = self._closed_for + 1 if np.linalg.norm(point - simulation.hand) < 0.03 else 0
            if self._closed_for > 8 and first and second:
                angle = np.array([[np.cos(_KNOB_TURN), -np.sin(_KNOB_TURN), 0.0],
                                  [np.sin(_KNOB_TURN), np.cos(_KNOB_TURN), 0.0],
                                  [0.0, 0.0, 1.0]])  # fmt: skip
                return towards(simulation, point, angle @ rotation, CLOSED)
            return towards(simulation, point, rotation, CLOSED)
        travel = highest_near(self._geometry.others(set()), simulation.hand[:2], point[:2], 0.08) + 0.05
        return over(simulation, point, rotation, OPEN, travel, mouth=0.006, slope=6.0)


class Drawer:
    """A drawer, or a door: its joint, the side that faces the room, and its handle."""

    def __init__(self, simulation: "Simulation", geometry: Geometry, joint: str) -> None:
        self.simulation, self.geometry = simulation, geometry
        self._joint = simulation.model.joint(joint)
        self.body = int(self._joint.bodyid[0])

    @property
    def opening(self) -> float:
        """How far it is open [m]."""
        return float(-self.simulation.data.qpos[self._joint.qposadr[0]])

    @property
    def outwards(self) -> Float[np.ndarray, "3"]:
        """The direction in which it opens."""
        axis = np.array(self.simulation.data.xaxis[self._joint.id])
        return np.asarray(-axis / np.linalg.norm(axis))

    @property
    def handle(self) -> Float[np.ndarray, "3"]:
        """Middle of the bar that stands out furthest."""
        points = self.geometry.points({self.body}, fine=True)
        out = points @ self.outwards
        bar = points[out > out.max() - 0.016]
        return np.asarray((bar.max(0) + bar.min(0)) / 2)


class OpenDrawer:
    """Takes the handle of a drawer between the fingers, above and below it, and pulls."""

    def __init__(self, drawer: Drawer, is_open: Callable[[], bool], steep: float = 0.0) -> None:
        """`steep`: angle by which the hand points down from the level [rad]."""
        self._drawer, self._is_open, self._steep = drawer, is_open, steep
        self._closed_for = self._away_for = self._near_for = 0

    def done(self) -> bool:
        """It is open, and the hand has gone back from it and up."""
        return self._is_open() and self._away_for > 16

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        drawer, simulation = self._drawer, self._drawer.simulation
        out, handle, hand = drawer.outwards, drawer.handle, simulation.hand
        towards_face = -out * np.cos(self._steep) + _DOWN * np.sin(self._steep)
        closing = -np.array([0.0, 0.0, 1.0]) * np.cos(self._steep) - out * np.sin(self._steep)
        rotation = pointing(towards_face, closing)
        if self._is_open() and drawer.opening > 0.15:
            self._away_for += 1
            goal = hand + out * 0.08 if self._away_for < 8 else hand + np.array([0.0, 0.0, 0.10])
            return towards(simulation, goal, rotation, OPEN)
        ahead = float((hand - handle) @ out)
        aside = float(np.linalg.norm((hand - handle) - ahead * out))
        first, second = drawer.geometry.touching({drawer.body})
        self._near_for = self._near_for + 1 if ahead < _NEAR and aside < 0.012 else 0
        if self._closed_for or (self._near_for and ahead < 0.006) or self._near_for > _HINDERED:
            self._closed_for += 1
            if self._closed_for > 8 and (first or second):
                return towards(simulation, hand + out * 0.06, rotation, CLOSED, slow=0.8)
            if self._closed_for > 30:
                self._closed_for = 0
            return towards(simulation, handle, rotation, CLOSED)
        if turned(rotation, simulation) > 0.15 or aside > 0.03 or ahead > 0.12:
            start = handle + out * 0.10
            return towards(simulation, start, rotation, OPEN)
        return towards(simulation, handle + out * max(0.0, 3 * (aside - 0.008)), rotation, OPEN, slow=0.4)


class Push:
    """Pushes something with the closed fingers until it is where it belongs; the finger tips lead."""

    def __init__(
        self,
        simulation: "Simulation",
        geometry: Geometry,
        contact: Callable[[], tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]],
        there: Callable[[], bool],
        steep: float = 0.9,
    ) -> None:
        """`contact` gives the point to push and the direction to push in, now; `steep` as for OpenDrawer."""
        self._simulation, self._geometry, self._contact, self._there = simulation, geometry, contact, there
        self._steep = steep
        self._behind = False

    def done(self) -> bool:
        """It is there."""
        return self._there()

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        simulation = self._simulation
        point, push = self._contact()
        hand = simulation.hand
        side = np.cross(push, _DOWN)
        if side @ simulation.hand_rotation[:, 0] < 0:
            side = -side
        rotation = pointing(push * np.cos(self._steep) + _DOWN * np.sin(self._steep), side)
        start = point - push * 0.05
        away = float(np.linalg.norm(hand - start))
        self._behind = (self._behind and float((hand - point) @ push) < 0.05) or (
            away < 0.02 and turned(rotation, simulation) < 0.2
        )
        if self._behind:
            return towards(simulation, point + push * 0.05, rotation, CLOSED, slow=0.6)
        travel = highest_near(self._geometry.others(set()), hand[:2], start[:2], 0.05) + 0.05
        return over(simulation, start, rotation, CLOSED, travel, mouth=0.012, slope=4.0)


class Drag:
    """Presses the closed finger tips on a flat thing, ahead of its middle, and draws it along."""

    def __init__(
        self,
        simulation: "Simulation",
        geometry: Geometry,
        thing: str,
        goal: Callable[[], Float[np.ndarray, "3"]],
        there: Callable[[], bool],
    ) -> None:
        """`goal` gives where the middle of the thing is to be."""
        self._simulation, self._geometry, self._goal, self._there = simulation, geometry, goal, there
        self._bodies = geometry.bodies(geometry.root(thing))
        self._down = False

    def done(self) -> bool:
        """It is there."""
        return self._there()

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        simulation = self._simulation
        hand, points = simulation.hand, self._geometry.points(self._bodies, fine=True)
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        way = self._goal()[:2] - (low + high) / 2
        ahead = np.array([*way, 0.0]) / max(float(np.linalg.norm(way)), 1e-6)
        at = (low + high) / 2 + _AHEAD * float((high - low).min()) * ahead[:2]
        top = float(points[np.linalg.norm(points[:, :2] - at, axis=1) < 0.015, 2].max())
        point = np.array([*at, top + _TIP])
        rotation = pointing_down(ahead, simulation.hand_rotation)
        away = hand - point
        self._down = bool(away[2] < (0.02 if self._down else 0.006) and np.linalg.norm(away[:2]) < 0.04)
        if self._down:
            return towards(simulation, point + _PULL * ahead + _PRESS * _DOWN, rotation, CLOSED)
        travel = highest_near(self._geometry.others(set()), hand[:2], at, 0.08) + 0.05
        return over(simulation, point, rotation, CLOSED, travel, mouth=0.012, slope=4.0)
