"""The interface of a robot: four methods. An arm of your own, LeRobot's arms and a simulated one have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


class RobotError(RuntimeError):
    """A robot that does not respond or cannot do what it was commanded; the message says which and the mend."""


@dataclass(frozen=True)
class RobotObservation:
    """What a robot observes at one moment.

    Attributes:
        images: uint8 [H, W, 3] by camera, RGB, upright.
        proprioception: [P], as the policy was trained.
        stamp: when it was taken [s on the monotonic clock]; an observation whose stamp does not move counts as old.
        gripper_force: between the fingers [N], nan for a reading that failed, None where it is not measured.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprioception: Vector
    stamp: float
    gripper_force: float | None = None


@runtime_checkable
class Robot(Protocol):
    """A robot; the controller calls these from one thread, `observe` and `send` once a control step.

    While `observe` hangs its watchdog calls `send` from another thread; no two calls of `send` overlap.
    """

    def connect(self) -> None:
        """Makes it ready to move. Raises RobotError."""
        ...

    def observe(self) -> RobotObservation:
        """The newest observation; should not wait for a new one. Raises RobotError."""
        ...

    def send(self, command: Vector) -> None:
        """Commands one action [A], within the limits of the robot's file. Raises RobotError."""
        ...

    def close(self) -> None:
        """Brings it to rest and disconnects."""
        ...


@runtime_checkable
class ExpiringRobot(Protocol):
    """A robot that commands pass through another process to, which looks at their age once more."""

    def send_until(self, command: Vector, until: float) -> None:
        """As `send`, but not after `until` [s on the monotonic clock]."""
        ...


class DryRun:
    """A robot whose commands are shown and not sent."""

    def __init__(self, robot: Robot, show: Callable[[str], None]) -> None:
        self._robot, self._show = robot, show

    def connect(self) -> None:
        """As the robot's."""
        self._robot.connect()

    def observe(self) -> RobotObservation:
        """As the robot's."""
        return self._robot.observe()

    def send(self, command: Vector) -> None:
        """Shows the command."""
        self._show(" ".join(f"{x:+.3f}" for x in command))

    def close(self) -> None:
        """As the robot's."""
        self._robot.close()
