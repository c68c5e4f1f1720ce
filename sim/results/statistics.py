"""Intervals and tests behind every figure that the project reports; scipy, slow to load, is imported where used."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two success rates over the same (task, initial state, seed) pairs.

    Attributes:
        n: number of pairs.
        value: rate of the first arm minus rate of the second, -1 to 1.
        ci95: interval of the difference (Bonett and Price 2012, an adjusted Wald interval for paired proportions).
        only_first, only_second: pairs in which one arm alone succeeded.
        p: exact McNemar p-value, two-sided.
    """

    n: int
    value: float
    ci95: tuple[float, float]
    only_first: int
    only_second: int
    p: float

    @property
    def shown(self) -> bool:
        """Whether the data show a difference: the interval leaves zero out and p is below 0.05."""
        low, high = self.ci95
        return (low > 0 or high < 0) and self.p < 0.05


@dataclass(frozen=True)
class Percentiles:
    """Latency percentiles in milliseconds over n decisions; nan when there were none."""

    n: int
    p50: float
    p95: float
    p99: float


def wilson95(successes: int, n: int) -> tuple[float, float]:
    """Wilson 95 % interval of a success rate; (0, 1) when n is 0.

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is impossible: expected 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson95(successes: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson (exact) 95 % interval of a success rate; (0, 1) when n is 0.

    It holds the true rate in at least 95 % of runs also where that is near 0 or 1, where Wilson's may not. Raises
    ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is impossible: expected 0 <= successes <= n")
    if n == 0:
        return 0.0, 1.0
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def ratio95(first: tuple[int, int], second: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the ratio of two success rates, each given as (successes, n), from the Wilson interval of each.

    Donner and Zou (2012), for independent rates: for rates over the same initial states it is rather too wide. Raises
    ValueError for a second rate of 0, and what `wilson95` raises.
    """
    (low1, high1), (low2, high2) = wilson95(*first), wilson95(*second)
    if second[0] == 0:
        raise ValueError(f"no ratio over {second[0]} successes of {second[1]} trials: leave it out")
    p1, p2 = first[0] / first[1], second[0] / second[1]
    product, below, above = p1 * p2, high2 * (2 * p2 - high2), low2 * (2 * p2 - low2)
    if below > 0:
        low = (product - sqrt(max(0.0, product**2 - low1 * (2 * p1 - low1) * below))) / below
    else:  # the second rate is so uncertain that the formula has no root: both limits at once
        low = low1 / high2
    return max(0.0, low), (product + sqrt(max(0.0, product**2 - high1 * (2 * p1 - high1) * above))) / above


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p-value of the discordant pairs; 1 when there are none."""
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method (1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> PairedDifference:
    """Success rate of `first` minus that of `second`, entry i of both being the same (task, initial state, seed).

    Raises ValueError when the two differ in length or are empty.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"{len(first)} and {len(second)} outcomes cannot be paired: both need the same pairs, at least 1"
        )
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    n, only_first, only_second = a.size, int((a & ~b).sum()), int((~a & b).sum())
    p10, p01 = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = NormalDist().inv_cdf(0.975) * sqrt((p10 + p01 - (p10 - p01) ** 2) / (n + 2))
    return PairedDifference(
        n,
        (only_first - only_second) / n,
        (max(-1.0, p10 - p01 - half), min(1.0, p10 - p01 + half)),
        only_first,
        only_second,
        mcnemar_exact(only_first, only_second),
    )


def mean95(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean and its 95 % Student t interval; the interval is None below two values.

    Raises ValueError when there are no values.
    """
    if not len(values):
        raise ValueError("no values: a mean needs at least one")
    x = np.asarray(values, float)
    mean = float(x.mean())
    if x.size < 2:
        return mean, None
    from scipy import stats

    half = float(stats.t.ppf(0.975, x.size - 1) * x.std(ddof=1) / sqrt(x.size))
    return mean, (mean - half, mean + half)


def percentiles(milliseconds: Sequence[float]) -> Percentiles:
    """p50, p95 and p99 of latencies in milliseconds (warm-up already left out by the caller)."""
    if not len(milliseconds):
        return Percentiles(0, nan, nan, nan)
    p50, p95, p99 = np.percentile(np.asarray(milliseconds, float), (50, 95, 99))
    return Percentiles(len(milliseconds), float(p50), float(p95), float(p99))
