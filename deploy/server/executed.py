"""Compares what a robot says that it executed with what it was sent."""

from collections import deque
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_TOLERANCE = 5e-3
"""Share of an entry's range: rounding, and the limits of a robot file that is written in few digits."""


class PlannedActions:
    """The actions that the chunks of one episode allow at each step.

    A controller sends a chunk's action, one between two of them (chunks blended, steps interpolated), or one between
    those, the last command and rest, where it holds, stops or is within its limits. What it executed lies in the box
    around all of these; where it started from before its first command is its own.

    Args:
        low, high: [A], range of each entry.
    """

    def __init__(self, low: Array, high: Array) -> None:
        self._tolerance = _TOLERANCE * (np.asarray(high, np.float64) - np.asarray(low, np.float64))
        self._plans: deque[tuple[int, Array]] = deque()
        self._last: Array | None = None
        self._last_step = 0

    def planned(self, step: int, chunk: Array) -> None:
        """A chunk [H, A] was planned at a step."""
        self._plans.append((step, np.asarray(chunk, np.float64)))

    def allows(self, step: int, action: Array) -> bool:
        """Whether `action` [A] may have been executed last before `step`; to be asked in the order of steps."""
        given = np.asarray(action, np.float64)
        first = self._last_step - 1 if self._last is not None else step - 1
        while self._plans and self._plans[0][0] + len(self._plans[0][1]) <= first:
            self._plans.popleft()
        found = True
        if self._last is not None:
            known = [np.zeros_like(given), self._last]
            for at, chunk in self._plans:
                known += list(chunk[max(0, first - at) : max(0, step + 1 - at)])
            box = np.array(known)
            low, high = box.min(axis=0) - self._tolerance, box.max(axis=0) + self._tolerance
            found = bool(((given >= low) & (given <= high)).all())
        self._last, self._last_step = given, step
        return found
