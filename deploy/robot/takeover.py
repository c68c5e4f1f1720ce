"""A person takes the arm over from the policy with a teleoperator, and gives it back."""

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.events import EventLog
from vlamem.deploy.robot.protocol import Vector
from vlamem.deploy.robot.robot_file import RobotFile

Command = NDArray[np.float64]
EASE_S = 1.0
"""Whoever gets the arm moves it from where it is to where they want it within this time."""
_FAILURES_S = 5.0
"""A teleoperator that fails is complained about once in this time."""


@runtime_checkable
class Teleoperator(Protocol):
    """A device with which a person commands the robot; its methods are called from one thread."""

    def connect(self) -> None:
        """Makes it ready. Raises RobotError."""
        ...

    def read(self) -> Vector:
        """The action [A] that the person commands now, in the units of the robot's file. Raises RobotError."""
        ...

    def close(self) -> None:
        """Disconnects."""
        ...


@runtime_checkable
class EventfulTeleoperator(Protocol):
    """A teleoperator whose own buttons take the arm over."""

    def intervening(self) -> bool | None:
        """Whether the person has the arm by its buttons; None where they have said nothing yet."""
        ...


class TakeOver:
    """Whether a person has the arm, and what they command, read by a thread of its own at the control rate.

    `take` may be called from any thread. Whoever has the arm keeps it from one episode to the next.

    Args:
        teleoperator: not connected yet.
        robot_file: of the robot.
        events: gets `teleoperator_failed`.
        say: gets what the operator is to know.
        clock: of the control loop.
    """

    def __init__(
        self,
        teleoperator: Teleoperator,
        robot_file: RobotFile,
        events: EventLog,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._teleoperator, self._file, self._events = teleoperator, robot_file, events
        self._say, self._clock = say, clock
        self._taken, self._closing = threading.Event(), threading.Event()
        self._newest: tuple[float, Command] | None = None
        self._failed_at = -math.inf
        self._pressed: bool | None = None
        self._thread = threading.Thread(target=self._read_all, name="teleoperator", daemon=True)

    @property
    def taken(self) -> bool:
        """Whether the person has the arm."""
        return self._taken.is_set()

    def take(self, taken: bool) -> None:
        """The person takes the arm, or gives it back."""
        if taken:
            self._taken.set()
        else:
            self._taken.clear()

    def start(self) -> None:
        """Connects the teleoperator, and reads it from now on. Raises RobotError."""
        self._teleoperator.connect()
        self._thread.start()

    def close(self) -> None:
        """Ends the reading and disconnects; a teleoperator that hangs is left alone."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(2)
        if not self._thread.is_alive():
            self._teleoperator.close()

    def command(self, now: float) -> Command | None:
        """What the person commands, [A]; None where nothing was read for `stale_s` of the robot's file."""
        newest = self._newest
        return None if newest is None or now - newest[0] > self._file.stale_s else newest[1]

    def poll(self) -> None:
        """Reads the teleoperator once; what it raises is noted, and counts as nothing read."""
        try:
            action = np.array(self._teleoperator.read(), np.float64)
            if action.shape != (self._file.size,) or not np.isfinite(action).all():
                raise ValueError(f"its action is {action.tolist()}: expected {self._file.size} finite numbers")
            self._newest = self._clock(), action
            if isinstance(self._teleoperator, EventfulTeleoperator):
                pressed = self._teleoperator.intervening()
                if pressed is not None and pressed != self._pressed:  # the last word counts: a button's or a key's
                    self.take(pressed)
                self._pressed = pressed
        except Exception as error:  # devices raise what they like
            if self._clock() - self._failed_at > _FAILURES_S:
                self._failed_at = self._clock()
                why = f"{type(error).__name__}: {error}"
                self._events.note("teleoperator_failed", why=why)
                self._say(f"the teleoperator fails: {why}")

    def _read_all(self) -> None:
        period = 1 / self._file.control_hz
        while not self._closing.wait(period):
            self.poll()


class Hands:
    """Who has the arm, as the control loop sees it, and how it changes hands without a jump.

    Whoever gets the arm begins from where it rests: their commands are reached over EASE_S.

    Args:
        takeover: of a person with a teleoperator; None without one.
        eased: [A], entries that may have values between two commands; the others change at once.
    """

    def __init__(self, takeover: TakeOver | None, eased: NDArray[np.bool_]) -> None:
        self._takeover, self._eased = takeover, eased
        self.taken = self._begins = False
        self._since = -math.inf
        self._from: Command = np.zeros(len(eased))

    def changed(self) -> bool:
        """Whether the arm has changed hands since the round before; `taken` says into whose."""
        before, self.taken = self.taken, self._takeover is not None and self._takeover.taken
        self._begins = self._begins or self.taken != before
        return self.taken != before

    def interrupted(self) -> None:
        """The person has the arm and something else moves it: they begin from rest again."""
        self._begins = self._begins or self.taken

    def command(self, now: float) -> Command | None:
        """What the person commands; None where they have not got the arm, or say nothing."""
        if self._takeover is None or not self.taken:
            return None
        command = self._takeover.command(now)
        if command is None:
            self.interrupted()
        return command

    def eased(self, wanted: Command, now: float, rest: Command | None) -> Command:
        """The command of this moment on the way to `wanted`; `rest` is the one at which the arm stays where it is."""
        if self._begins and rest is not None:
            self._begins, self._since, self._from = False, now, rest
        share = (now - self._since) / EASE_S
        return wanted if share >= 1 else np.where(self._eased, self._from + share * (wanted - self._from), wanted)
