"""What consecutive trials come to: rates and paired differences over their last half, recovery after a change."""

from collections.abc import Mapping, Sequence

import numpy as np

from vlamem.sim.bench.deployment.arms import Condition
from vlamem.sim.bench.deployment.play import Series, Trial
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, paired_difference

WINDOW = 20
"""Trials of a rolling success rate."""
Trials = Mapping[Series, Sequence[Trial]]


def outcomes(trials: Trials, condition: Condition, arm: str, order: int, most: int | None = None) -> list[bool]:
    """Successes of one series in order of trials, the first `most`."""
    for series, played in trials.items():
        if (series.condition, series.arm.name, series.order) == (condition, arm, order):
            return [t.success for t in played][:most]
    return []


def last_half(values: Sequence[bool]) -> list[bool]:
    """The trials that a memory has had time to fill before."""
    return list(values[len(values) // 2 :])


def late_difference(
    trials: Trials, condition: Condition, arm: str, orders: Sequence[int], most: int
) -> PairedDifference | None:
    """Success of an arm minus that of the policy alone, over the last half of the first `most` trials of each order."""
    first: list[bool] = []
    second: list[bool] = []
    for order in orders:
        a, b = (outcomes(trials, condition, name, order, most) for name in (arm, "policy"))
        n = min(len(a), len(b))
        first += a[n // 2 : n]
        second += b[n // 2 : n]
    return paired_difference(first, second) if first else None


def mean_points(each: Sequence[PairedDifference]) -> Figure:
    """Mean of independent differences in points; its interval is made of theirs."""
    value = 100 * float(np.mean([d.value for d in each]))
    half = 100 * float(np.sqrt(sum(((d.ci95[1] - d.ci95[0]) / 2) ** 2 for d in each))) / len(each)
    return Figure(value, sum(d.n for d in each), (value - half, value + half))


def recovery(changed: Sequence[bool], bare: Sequence[bool], window: int = WINDOW) -> int | None:
    """Trials after a change until the arm's rate over the last `window` trials is the bare policy's or above.

    Only trials after the change count, and at least half a window of them. None when that does not happen.
    """
    half = min(len(changed), len(bare)) // 2
    a, b = np.asarray(changed[half:], float), np.asarray(bare[half:], float)
    for k in range(window // 2, len(a) + 1):
        recent = slice(max(0, k - window), k)
        if a[recent].sum() >= b[recent].sum():
            return k
    return None
