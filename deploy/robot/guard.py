"""What may reach an arm: the rule of the process that has the arm's bus, apart from any clock, socket or driver.

The controller's commands pass while they come in time. Where none comes, or one was thought out too long ago, the arm
gets rest; after the operator's stop it gets what slows it down, and then rest, until go. It is no emergency stop:
docs/deploy.md says what an arm needs besides.
"""

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.limits import Limits
from vlamem.deploy.robot.protocol import RobotObservation
from vlamem.deploy.robot.robot_file import RobotFile

Command = NDArray[np.float64]
DEADLINE_S = 0.07
"""Without a command for so long, and at least for two periods, the arm is brought to rest: with the time until the bus
takes it within 0.1 s."""
STOP_S = 0.08
"""The operator's stop has the arm at rest after so long at most: with the time until the stop is heard within 0.1 s."""
_SLACK = 1e-9


class Guard:
    """Decides what an arm is sent; `counts` says why commands were replaced.

    Args:
        robot: the arm's file.
        deadline_s: without a command, or from the beginning of the round that made it until the arm gets it.
    """

    def __init__(self, robot: RobotFile, deadline_s: float | None = None) -> None:
        self._period = 1 / robot.control_hz
        self.deadline_s = max(2 * self._period, DEADLINE_S) if deadline_s is None else deadline_s
        self._stop_s = max(0.0, min(robot.stop_s, STOP_S) - self._period)
        self._limits, self._size = Limits(robot), robot.size
        self._nothing = RobotObservation({}, np.full(robot.proprioception, np.nan), 0.0)
        self._last: Command | None = None
        self._commanded_at = self._sent_at = -math.inf
        self._stop_at: float | None = None
        self.counts: Counter[str] = Counter()

    @property
    def stopped(self) -> bool:
        """Whether the operator's stop is in force."""
        return self._stop_at is not None

    def stop(self, now: float) -> None:
        """The operator's stop, in force until `go`; a second one changes nothing."""
        if self._stop_at is None:
            self._stop_at = now

    def go(self) -> None:
        """Ends the operator's stop."""
        self._stop_at = None

    def begin(self) -> None:
        """A new episode: what was commanded before it means nothing."""
        self._last = None

    def command(self, command: Command, now: float, round_began: float, until: float = math.inf) -> Command | None:
        """What the arm is sent in place of `command`, None for nothing.

        `round_began` is when the round that made it began, `until` when what it was planned from is too old.
        """
        self._commanded_at = now
        why = self._objection(command, now, round_began, until)
        if why is None:  # the last command may be a rest that the controller knows nothing of
            return self._sent(command if self._last is None else self._limits.stepped(command, self._last), now)
        self.counts[why] += 1
        return self._rest(now)

    def check(self, now: float) -> Command | None:
        """The rest that is due now, None when none is; asked more often than once a period."""
        if self._last is None or now - self._sent_at < self._period:
            return None
        if self._stop_at is not None and now - self._stop_at >= self._stop_s:
            return self._rest(now)
        if now - self._commanded_at <= self.deadline_s:
            return None
        self.counts["silent"] += 1
        return self._rest(now)

    def _objection(self, command: Command, now: float, round_began: float, until: float) -> str | None:
        if command.shape != (self._size,) or not np.isfinite(command).all():
            return "nan"
        if now - round_began > self.deadline_s:
            return "late"
        if now > until:
            return "stale"
        if self._stop_at is not None and (now - self._stop_at >= self._stop_s or not self._slows(command)):
            return "stopped"
        return None

    def _slows(self, command: Command) -> bool:
        """Whether no entry is further from rest than the last command's."""
        rest = self._limits.rest(self._last, self._nothing)
        if self._last is None or rest is None:
            return False
        return bool((np.abs(command - rest) <= np.abs(self._last - rest) + _SLACK).all())

    def _rest(self, now: float) -> Command | None:
        rest = self._limits.rest(self._last, self._nothing)
        return None if self._last is None or rest is None else self._sent(rest, now)

    def _sent(self, command: Command, now: float) -> Command:
        self._last, self._sent_at = command, now
        return command
