"""Picking a thing up and putting it somewhere, with privileged state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.libero.geometry import Geometry, highest_near
from vlamem.sim.suites.libero.grasp import Grasp, plan_grasps
from vlamem.sim.suites.libero.motion import CLOSED, OPEN, over, pointing_down, strain, towards, turned

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.simulation import Simulation

_CLEAR = 0.03
"""Room kept over what lies on the way [m]."""
_OPEN_HALF = 0.038
"""Half of the distance between the open fingers [m]."""
_FIRM = 4
"""Control steps for which both fingers must touch before the hand lifts."""
_LOOK_EVERY = 8
"""Control steps after which it is looked again what lies on the way."""
_LETTING_GO = 14
"""Control steps for which the fingers open before the hand rises, should the thing stick to one of them."""
_PATIENCE = 14
"""Control steps of closing after which a grasp that holds nothing has failed."""


@dataclass(frozen=True)
class Place:
    """Where a thing goes.

    Attributes:
        position: of the thing's own frame when it is let go, now.
        hand_height: least height of the hand there, so that the palm clears a rim; None when the position decides.
        near: how far from the position, seen from above, it may be let go [m].
        support: name of what it is put on or in; not an obstacle on the way down.
    """

    position: Callable[[], Float[np.ndarray, "3"]]
    hand_height: Callable[[], float] | None = None
    near: float = 0.018
    support: str | None = None


class PickAndPlace:
    """Grasps one object, carries it over everything on the way and lets it go.

    Its actions depend on the state and on little memory: the grasp it chose, and how long the fingers have closed.
    """

    def __init__(
        self,
        simulation: "Simulation",
        geometry: Geometry,
        thing: str,
        place: Place,
        placed: Callable[[], bool],
        deepest: float = 0.027,
        across_only: Callable[[], Float[np.ndarray, "2"]] | None = None,
    ) -> None:
        self.thing, self.place, self.placed = thing, place, placed
        self._simulation, self._geometry = simulation, geometry
        self._root = geometry.root(thing)
        self._bodies = geometry.bodies(self._root)
        self._deepest, self._across_only = deepest, across_only
        self._grasps: list[Grasp] = []
        self._tried = 0
        self._closing = self._touching = self._stuck = 0
        self._opening_for = 0
        self._lowest = np.inf
        self._obstacles: np.ndarray = np.zeros((0, 3))
        self._looked_for: set[int] | None = None
        self._looked_ago = 0

    def done(self) -> bool:
        """The thing is where it belongs and the hand has let go of it and risen."""
        if not self.placed() or any(self._geometry.touching(self._bodies)):
            return False
        top = float(self._geometry.points(self._bodies)[:, 2].max())
        return bool(self._simulation.hand[2] > top + 0.03)

    def holds(self) -> bool:
        """The fingers hold the thing."""
        return all(self._geometry.touching(self._bodies))

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        simulation, hand = self._simulation, self._simulation.hand
        first, second = self._geometry.touching(self._bodies)
        held = first and second and simulation.opening > 0.001
        self._touching = self._touching + 1 if held else 0
        if self._opening_for or (self.placed() and not held):
            self._opening_for = max(0, self._opening_for - 1)
            self._closing = 0
            return towards(simulation, hand + self._letting_go(first, second), None, OPEN)
        if self._touching >= _FIRM or (self._touching and hand[2] > self._grasp_pose()[0][2] + 0.03):
            return self._carry()
        return self._take(held)

    def _take(self, held: bool) -> Float[np.ndarray, "7"]:
        simulation, hand = self._simulation, self._simulation.hand
        point, closing = self._grasp_pose()
        rotation = pointing_down(closing, simulation.hand_rotation)
        at = bool(np.linalg.norm(point[:2] - hand[:2]) < 0.009 and hand[2] < point[2] + 0.006)
        if held or self._closing or (at and turned(rotation, simulation) < 0.12):
            self._closing += 1
            if self._closing > _PATIENCE and not held:
                self._closing, self._grasps = 0, []
                self._tried += 1
                self._opening_for = 12
            return towards(simulation, point, rotation, CLOSED, slow=0.3)
        travel = self._travel(hand, point, hand[2] - 0.011, set())
        self._stuck = self._stuck + 1 if np.linalg.norm(point - hand) < 0.05 else 0
        if self._stuck > 50:
            self._stuck, self._grasps = 0, []
            self._tried += 1
            self._opening_for = 12
        room = max(0.003, 0.6 * (_OPEN_HALF - self._grasp().width / 2))
        return over(simulation, point, rotation, OPEN, travel, mouth=min(room, 0.010), slope=6.0)

    def _letting_go(self, first: bool, second: bool) -> Float[np.ndarray, "3"]:
        """Where to with opening fingers: up, once they are clear; away from the one that the thing sticks to."""
        simulation = self._simulation
        if self._opening_for and simulation.opening < 0.06:
            return np.zeros(3)
        if self._opening_for and first != second:
            closing = simulation.hand_rotation[:, 0]
            position, _ = self._geometry.pose(self._root)
            return np.asarray(0.02 * np.sign((position - simulation.hand) @ closing) * closing)
        return np.array([0.0, 0.0, 0.08])

    def _carry(self) -> Float[np.ndarray, "7"]:
        simulation, hand = self._simulation, self._simulation.hand
        position, _ = self._geometry.pose(self._root)
        goal = self.place.position()
        bottom = float(self._geometry.points(self._bodies)[:, 2].min())
        self._closing = 0
        offset = position - hand
        target = goal - offset
        if self.place.hand_height is not None:
            target[2] = max(target[2], self.place.hand_height())
        away = float(np.linalg.norm(goal[:2] - position[:2]))
        low_enough = hand[2] < target[2] + 0.008
        if away < 0.03 and hand[2] < self._lowest - 0.0005:
            self._lowest, self._stuck = hand[2], 0
        elif away < 0.03:
            self._stuck += 1
        if (away < self.place.near and low_enough) or (
            away < 0.027 and self._stuck > 12 and hand[2] < target[2] + 0.05
        ):
            self._opening_for, self._touching, self._lowest, self._stuck = _LETTING_GO, 0, np.inf, 0
            return towards(simulation, hand, None, OPEN)
        rim_passed = 0.10 if self.place.hand_height is None else 0.04
        ignored = (
            {self._root}
            if away > rim_passed or self.place.support is None
            else {self._root, self._geometry.root(self.place.support)}
        )
        travel = self._travel(hand, target, bottom, ignored)
        closing = simulation.hand_rotation[:, 0]
        return over(simulation, target, pointing_down(closing, simulation.hand_rotation), CLOSED, travel, slope=3.0)

    def _travel(
        self, start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"], bottom: float, ignored: set[int]
    ) -> float:
        """Height of the hand at which its lowest part clears everything on the way."""
        bodies = {body for root in ignored for body in self._geometry.bodies(root)}
        if self._looked_for != bodies or self._looked_ago >= _LOOK_EVERY:
            self._obstacles, self._looked_for, self._looked_ago = self._geometry.others(bodies), bodies, 0
        self._looked_ago += 1
        top = highest_near(self._obstacles, start[:2], end[:2], 0.085)
        floor = float(self._simulation.origin[2])
        return max(top, floor + 0.02) + _CLEAR + float(start[2] - bottom)

    def _grasp(self) -> Grasp:
        self._grasp_pose()
        return self._grasps[min(self._tried * 7, len(self._grasps) - 1)]

    def _grasp_pose(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Grasp point and closing axis in the world, as the thing lies now; plans a grasp when there is none."""
        position, rotation = self._geometry.pose(self._root)
        if not self._grasps:
            self._grasps = plan_grasps(
                self._geometry.points(self._bodies, fine=True),
                self._geometry.others(self._bodies, fine=True),
                position,
                rotation,
                self._simulation.hand_rotation[:, 0],
                float(self._simulation.origin[2]),
                lambda at: strain(self._simulation, at),
                self._deepest,
                None if self._across_only is None else self._across_only(),
            )
            if not self._grasps:
                raise GraspError(f"no grasp of '{self.thing}' fits between the fingers in episode state at hand")
        grasp = self._grasps[min(self._tried * 7, len(self._grasps) - 1)]
        return position + rotation @ grasp.point, rotation @ grasp.closing


class GraspError(RuntimeError):
    """Nothing about a thing fits between the fingers."""
