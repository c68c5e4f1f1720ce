"""A success rate as pages show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from vlamem.sim.results.statistics import wilson95


@dataclass(frozen=True)
class Rate:
    """A success rate in per cent with its Wilson 95 % interval; the macro `rate` prints it."""

    successes: int
    n: int

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Self:
        """The rate of some outcomes."""
        return cls(sum(outcomes), len(outcomes))

    @property
    def percent(self) -> float:
        """The rate, 0 to 100. Raises ZeroDivisionError when n is 0."""
        return 100 * self.successes / self.n

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return wilson95(self.successes, self.n)

    @property
    def low(self) -> float:
        """Lower end of the interval, 0 to 100."""
        return 100 * self._interval[0]

    @property
    def high(self) -> float:
        """Upper end of the interval, 0 to 100."""
        return 100 * self._interval[1]
