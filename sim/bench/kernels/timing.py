"""Times of calls, alone and in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlamem.sim.results.pages import Figure


@dataclass(frozen=True)
class Timing:
    """Call times of one entry in microseconds."""

    calls: np.ndarray[Any, np.dtype[np.float64]]

    def quantile(self, q: float) -> Figure:
        """The quantile with its order-statistic 95 % interval."""
        ordered = np.sort(self.calls)
        n = len(ordered)
        half = 1.96 * np.sqrt(n * q * (1 - q))
        low, mid, high = (int(np.clip(i, 0, n - 1)) for i in (n * q - half, n * q, n * q + half))
        return Figure(float(ordered[mid]), n, (float(ordered[low]), float(ordered[high])))


def _timed(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def measure(call: Callable[[], object], seconds: float) -> Timing:
    """Times `call` for `seconds` after warm-up; a call that takes longer than that is timed twice."""
    call()
    end = time.perf_counter() + seconds / 10
    while time.perf_counter() < end:
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        times.append(_timed(call))
    return Timing(np.array(times))


def measure_in_turn(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Times several calls one after the other, again and again, so that what disturbs one disturbs all."""
    for call in calls.values():
        call(), call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for name, call in calls.items():
            times[name].append(_timed(call))
    return {name: Timing(np.array(found)) for name, found in times.items()}
