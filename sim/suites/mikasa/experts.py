"""Scripted policies with privileged state: experts that know the answer, ones that guess it, and two that need none.

`touch-cue` and `touch-all` remember nothing. They show what the benchmark's own metric lets pass: the first touches the
cue while it shows, the second one object after the other.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float

from vlamem.core.seeding import stream
from vlamem.sim.suites.mikasa.catalogue import MikasaTask
from vlamem.sim.suites.mikasa.simulation import Simulation
from vlamem.sim.suites.protocol import NoExpertError, SuiteError

ACTORS = ("expert", "guess", "touch-cue", "touch-all")
OPEN, CLOSED = -1.0, 1.0
_GAIN = 16.0
"""Translation action per metre of error: the hand gets some 0.04 m of the 0.1 m that an action of 1 asks for."""
_TURN_GAIN = 4.0
"""Rotation action per radian of error."""
_OVER = 0.042
"""Height of a touching hand over an object's centre [m]: within reach, and above what it would push away."""
_HIDDEN = 10.0
"""What the benchmark hides lies above this height [m]."""


class Actor(Protocol):
    """Acts in a scene."""

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        ...


def towards(
    simulation: Simulation, point: Float[np.ndarray, "3"], gripper: float, tilt: float = 0.0
) -> Float[np.ndarray, "7"]:
    """Straight to a point, pointing down as at the start, or forward by `tilt` [rad], which reaches further."""
    from scipy.spatial.transform import Rotation

    w, x, y, z = simulation.hand_quaternion
    wanted = Rotation.from_euler("y", -tilt) * Rotation.from_quat([1.0, 0.0, 0.0, 0.0])
    turn = (wanted * Rotation.from_quat([x, y, z, w]).inv()).as_rotvec()
    move = np.clip(_GAIN * (point - simulation.hand), -1.0, 1.0)
    return np.array([*move, *np.clip(_TURN_GAIN * turn, -1.0, 1.0), gripper], np.float32)


class Toucher:
    """Waits where it is until objects can be chosen from, then touches `target`."""

    def __init__(self, simulation: Simulation, target: int) -> None:
        self._simulation, self._target, self._home = simulation, target, simulation.hand

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        simulation = self._simulation
        if simulation.phase != "choice":
            return towards(simulation, self._home, CLOSED)
        return towards(simulation, _above(simulation.objects()[self._target]), CLOSED)


class CueToucher:
    """Touches what the cue shows while it shows, and stays there."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation, self._goal = simulation, simulation.hand

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        simulation = self._simulation
        if simulation.phase == "cue":
            shown = [p for p in simulation.objects().values() if p[2] < _HIDDEN]
            if shown:
                self._goal = _above(min(shown, key=lambda p: float(np.linalg.norm(p - simulation.hand))))
        return towards(simulation, self._goal, CLOSED)


class AllToucher:
    """Waits until objects can be chosen from, then touches one after the other from one side to the other."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation, self._home = simulation, simulation.hand
        self._left: list[int] | None = None

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        simulation = self._simulation
        if simulation.phase != "choice":
            return towards(simulation, self._home, CLOSED)
        objects = simulation.objects()
        if self._left is None:
            self._left = sorted(objects, key=lambda key: float(objects[key][1]))
        if not self._left:
            return towards(simulation, simulation.hand, CLOSED)
        goal = _above(objects[self._left[0]])
        if simulation.still and float(np.linalg.norm(goal - simulation.hand)) < 0.02:
            self._left.pop(0)
        return towards(simulation, goal, CLOSED)


class SequenceToucher:
    """Touches cubes in an order, then presses and releases the button; what was done is read from the scene."""

    _HIGH = 0.11
    _NEAR = 0.018

    def __init__(self, simulation: Simulation, order: Sequence[int]) -> None:
        self._simulation, self._order, self._home = simulation, tuple(order), simulation.hand

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        simulation, scene = self._simulation, self._simulation.scene
        if simulation.phase != "choice":
            return towards(simulation, self._home, CLOSED)
        touched = scene.touched_cubes[0].tolist()
        left = [key for key in self._order if not touched[key]]
        if left:
            cube = simulation.objects()[left[0]]
            return self._down_at(cube[:2], float(cube[2]) + float(scene.CUBE_HALFSIZE) + 0.018)
        if bool(scene.button_pressed[0]):
            return towards(simulation, simulation.hand, CLOSED)
        button = scene.button_xy[0].cpu().numpy().astype(np.float64)
        if bool(scene.pending_press[0]):
            lifted = float(scene.press_start_tcp_z[0]) + float(scene.REQUIRED_LIFT_HEIGHT) + 0.02
            return towards(simulation, np.array([*button, lifted]), CLOSED)
        return self._down_at(button, float(scene.button_top_z[0]) + 0.01)

    def _down_at(self, xy: Float[np.ndarray, "2"], low: float) -> Float[np.ndarray, "7"]:
        """Over a place first, then down on it; up first where the hand is low and elsewhere."""
        hand = self._simulation.hand
        away = float(np.linalg.norm(xy - hand[:2]))
        if away < self._NEAR:
            return towards(self._simulation, np.array([*xy, low]), CLOSED)
        if hand[2] < 0.8 * self._HIGH and away > 2 * self._NEAR:
            return towards(self._simulation, np.array([*hand[:2], self._HIGH + 0.03]), CLOSED)
        return towards(self._simulation, np.array([*xy, self._HIGH]), CLOSED)


class Carrier:
    """Grasps the cube of TakeItBack, carries it to the goal and then to `home`."""

    _LIFTED = 0.03
    _TILT = 0.6
    """Forward [rad]: the goal is further than a hand that points down reaches."""

    def __init__(self, simulation: Simulation, home: Float[np.ndarray, "2"]) -> None:
        self._simulation, self._home, self._closing = simulation, home, 0

    def act(self) -> Float[np.ndarray, "7"]:
        """The action of this control step."""
        simulation, scene = self._simulation, self._simulation.scene
        cube = scene.cube.pose.p[0].cpu().numpy().astype(np.float64)
        hand = simulation.hand
        away = float(np.linalg.norm(cube[:2] - hand[:2]))
        if not self._closing and away < 0.015 and abs(hand[2] - cube[2]) < 0.015:
            self._closing = 1
        if not self._closing:
            low = float(cube[2]) if away < 0.02 else float(cube[2]) + 0.07
            return towards(simulation, np.array([*cube[:2], low]), OPEN, self._TILT)
        if self._closing < 4:
            self._closing += 1
            return towards(simulation, hand, CLOSED, self._TILT)
        goal = self._home
        if not bool(scene.goal_reached_status[0]):
            goal = scene.goal_region.pose.p[0, :2].cpu().numpy().astype(np.float64)
        return towards(simulation, np.array([*goal, self._LIFTED]), CLOSED, self._TILT)


def _above(position: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return np.asarray(position + np.array([0.0, 0.0, _OVER]), np.float64)


def plays(task: MikasaTask, actor: str) -> bool:
    """Whether an actor has a script for a task, and a use in it: who is held still cannot touch the cue."""
    if actor == "touch-cue":
        return task.judging == "touch" and not task.frozen
    if actor == "touch-all":
        return task.judging == "touch"
    return bool(task.judging) or task.family == "TakeItBack"


def check_actor(task: MikasaTask, actor: str) -> None:
    """Raises SuiteError for an actor that does not exist, or that has nothing to do in a task."""
    if actor not in ACTORS:
        raise SuiteError(f"actor '{actor}' is unknown: choose one of {', '.join(ACTORS)}")
    if actor in ("touch-cue", "touch-all") and task.judging != "touch":
        raise SuiteError(
            f"actor '{actor}' is for tasks that end by touching one object, and '{task.name}' is not one of them"
        )
    if actor == "guess" and not task.chance:
        raise SuiteError(f"task '{task.name}' has nothing to choose from, so that nobody guesses: use --policy expert")


def actor_for(simulation: Simulation, actor: str, split: str, episode: int) -> Actor:
    """Whoever acts in this episode. Raises NoExpertError for a task that nobody has a script for."""
    task = simulation.task
    draw = stream(0, "mikasa", "guess", task.name, split, episode)
    if task.judging == "touch":
        if actor == "touch-cue":
            return CueToucher(simulation)
        if actor == "touch-all":
            return AllToucher(simulation)
        target = simulation.answer()[0]
        if actor == "guess":
            target = int(draw.choice(sorted(simulation.objects())))
        return Toucher(simulation, target)
    if task.judging == "sequence":
        order = simulation.answer()
        if actor == "guess":
            order = tuple(int(key) for key in draw.permutation(9)[: len(order)])
        return SequenceToucher(simulation, order)
    if task.family == "TakeItBack":
        home = simulation.scene.initial_region.pose.p[0, :2].cpu().numpy().astype(np.float64)
        if actor == "guess":  # the cube lies in one of three places, 0.1 m apart
            home = np.array([0.0, 0.1 * float(draw.integers(-1, 2)) + 0.025])
        return Carrier(simulation, home)
    raise NoExpertError(f"task '{task.name}' has no scripted expert: its family {task.family} has none yet")
