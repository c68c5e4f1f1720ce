"""Scripted experts: which motions reach a task's goal, in which order."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlamem.sim.suites.libero.fixtures import Drag, Drawer, OpenDrawer, Push, TurnKnob
from vlamem.sim.suites.libero.geometry import Geometry
from vlamem.sim.suites.libero.motion import OPEN
from vlamem.sim.suites.libero.pick_place import PickAndPlace, Place
from vlamem.sim.suites.protocol import NoExpertError

if TYPE_CHECKING:
    from vlamem.sim.suites.libero.simulation import Simulation

_PALM_OVER_RIM = 0.045
_PALM_BELOW = 0.024
"""How far below a rim the grasp point may be before the palm meets it [m]."""
_SLIDE = 2
"""MuJoCo's number for joints that slide."""
_APART = 0.09
"""Distance between things that go to the same region [m]."""
_APART_INSIDE = 0.06
"""Distance between things that go into the same container [m]."""
_OPEN_ENOUGH = 0.10
"""A drawer that is open further than this takes things [m]."""


@runtime_checkable
class Skill(Protocol):
    """One part of a task."""

    def done(self) -> bool:
        """Nothing is left to do."""
        ...

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment."""
        ...


class Expert:
    """Does the skills of a task one after the other."""

    def __init__(self, skills: list[Skill]) -> None:
        self.skills = skills
        self._at = 0

    @property
    def skill(self) -> Skill | None:
        """The skill of this moment; None when all are done."""
        while self._at < len(self.skills) and self.skills[self._at].done():
            self._at += 1
        return self.skills[self._at] if self._at < len(self.skills) else None

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this moment, [-1, 1]."""
        skill = self.skill
        if skill is None:
            return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, OPEN])
        return np.clip(skill.act(), -1.0, 1.0)


_ORDER = {"open": 0, "turnon": 1, "in": 2, "on": 2, "close": 3}
"""Which parts of a goal come first, whatever the order in which it names them."""


def expert_for(simulation: "Simulation") -> Expert:
    """The expert for a simulation's task. Raises NoExpertError where there is none."""
    geometry = Geometry(simulation)
    goal = sorted(simulation.goal, key=lambda predicate: _ORDER.get(predicate[0], 9))
    return Expert([skill for predicate in goal for skill in _skills(simulation, geometry, predicate)])


def _skills(simulation: "Simulation", geometry: Geometry, predicate: list[str]) -> list[Skill]:
    kind, thing, *rest = predicate
    where = rest[0] if rest else ""
    problem: Any = simulation.problem

    def holds() -> bool:
        return bool(problem._eval_predicate(predicate))

    def pick(place: Place) -> Skill:
        return PickAndPlace(simulation, geometry, thing, place, holds)

    if kind == "turnon":
        return [TurnKnob(simulation, geometry, thing, holds)]
    if kind in ("open", "close") and _slides(simulation, thing):
        drawer = Drawer(simulation, geometry, problem.object_sites_dict[thing].joints[0])
        return [OpenDrawer(drawer, holds) if kind == "open" else _close(drawer, holds)]
    if kind == "in" and where.endswith("_contain_region"):
        return [pick(_in_container(simulation, geometry, thing, where))]
    if kind == "in" and _slides(simulation, where):
        drawer = Drawer(simulation, geometry, problem.object_sites_dict[where].joints[0])
        inside = pick(_in_drawer(simulation, geometry, drawer, thing, where))
        return (
            [inside] if drawer.opening > _OPEN_ENOUGH else [OpenDrawer(drawer, lambda: drawer.opening > 0.14), inside]
        )
    if kind == "on" and where in problem.object_sites_dict and simulation.task.startswith("push_"):
        site = simulation.data.site(where)
        return [Drag(simulation, geometry, thing, lambda: np.array(site.xpos), holds)]
    if kind == "on" and where in problem.object_sites_dict:
        return [pick(_on_region(simulation, geometry, thing, where))]
    if kind == "on" and where in problem.obj_body_id:
        return [pick(_on(simulation, geometry, thing, where))]
    raise NoExpertError(f"no scripted expert reaches '{' '.join(predicate)}' of task '{simulation.task}'")


def _slides(simulation: "Simulation", region: str) -> bool:
    """Whether a region is in a drawer."""
    site = simulation.problem.object_sites_dict.get(region)
    return bool(site and site.joints and simulation.model.joint(site.joints[0]).type[0] == _SLIDE)


def _close(drawer: Drawer, closed: Callable[[], bool]) -> Skill:
    def contact() -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        return drawer.handle, -drawer.outwards

    return Push(drawer.simulation, drawer.geometry, contact, closed)


def _in_drawer(simulation: "Simulation", geometry: Geometry, drawer: Drawer, thing: str, region: str) -> Place:
    root = geometry.root(thing)
    bodies = geometry.bodies(root)
    cabinet = geometry.bodies(geometry.root(simulation.problem.object_sites_dict[region].parent_name))

    def position() -> Float[np.ndarray, "3"]:
        site = np.array(simulation.data.site(region).xpos)
        at, _ = geometry.pose(root)
        bottom = float(geometry.points(bodies)[:, 2].min())
        return np.array([*(site[:2] + 0.01 * drawer.outwards[:2]), site[2] + at[2] - bottom])

    def clear() -> float:
        return float(geometry.points(cabinet)[:, 2].max()) - 0.02

    return Place(position, clear, near=0.02)


def _on_region(simulation: "Simulation", geometry: Geometry, thing: str, region: str) -> Place:
    root = geometry.root(thing)
    bodies = geometry.bodies(root)
    parent = simulation.problem.object_sites_dict[region].parent_name
    below = geometry.bodies(geometry.root(parent)) if parent in simulation.problem.obj_body_id else None
    together = [predicate[1] for predicate in simulation.goal if predicate[0] == "on" and predicate[2] == region]
    beside = np.array([0.0, _APART * (together.index(thing) - (len(together) - 1) / 2), 0.0])

    def position() -> Float[np.ndarray, "3"]:
        site = np.array(simulation.data.site(region).xpos) + beside
        at, _ = geometry.pose(root)
        surface = float(simulation.origin[2])
        if below is not None:
            points = geometry.points(below)
            under = points[np.linalg.norm(points[:, :2] - site[:2], axis=1) < 0.05]
            surface = float(under[:, 2].max()) if len(under) else float(site[2])
        bottom = float(geometry.points(bodies)[:, 2].min())
        return np.array([*site[:2], surface + (at[2] - bottom) + 0.004])

    return Place(position, support=parent if below is not None else None)


def _in_container(simulation: "Simulation", geometry: Geometry, thing: str, region: str) -> Place:
    container = simulation.problem.object_sites_dict[region].parent_name
    bodies = geometry.bodies(geometry.root(container))
    together = [predicate[1] for predicate in simulation.goal if predicate[0] == "in" and predicate[2] == region]
    share = together.index(thing) - (len(together) - 1) / 2

    def position() -> Float[np.ndarray, "3"]:
        size = np.ptp(geometry.points(bodies)[:, :2], axis=0)
        beside = _APART_INSIDE * share * np.eye(3)[int(np.argmax(size))]
        return np.asarray(simulation.data.site(region).xpos + beside)

    def rim() -> float:
        return float(geometry.points(bodies)[:, 2].max()) + _PALM_OVER_RIM

    return Place(position, rim, near=0.02, support=container)


def _on(simulation: "Simulation", geometry: Geometry, thing: str, support: str) -> Place:
    root, below = geometry.root(thing), geometry.root(support)
    bodies, bodies_below = geometry.bodies(root), geometry.bodies(below)

    def position() -> Float[np.ndarray, "3"]:
        at, _ = geometry.pose(root)
        centre, _ = geometry.pose(below)
        under = geometry.points(bodies_below)
        middle = under[np.linalg.norm(under[:, :2] - centre[:2], axis=1) < 0.02]
        top = float(middle[:, 2].max()) if len(middle) else float(under[:, 2].max())
        bottom = float(geometry.points(bodies)[:, 2].min())
        return np.array([*centre[:2], top + (at[2] - bottom) + 0.004])

    def rim() -> float:
        return float(geometry.points(bodies_below)[:, 2].max()) - _PALM_BELOW

    return Place(position, rim, support=support)
