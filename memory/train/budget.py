"""Holds a gate to a budget: how far its threshold moves until recorded episodes are written that often, and no more.

Measured as the gate is used, not as it was trained: whole episodes from an empty state, each once, whatever the weights
of their tasks, without the noise of training; and closed loop, for a write changes what the gate sees next.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from vlamem.core.seeding import stream
from vlamem.memory.protocol import Memory, Params
from vlamem.memory.train.batches import Row, TrainingSet

BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Writes per tick for which the file keeps how far the threshold moves."""
_TICKS = 32_768
"""About how many ticks are looked at: enough for 160 writes under the least budget, and a tenth of a second a look."""
_LANES = 32
_UNIT = 1000
"""Steps in which a threshold moves for a logit of 1, so that what a header says is what was measured."""
_LOWEST = -40 * _UNIT
"""Where a gate is no longer opened for a budget that it does not use up."""

RateAt = Callable[[int], float]
"""Writes per tick with the threshold so many units higher."""


def with_budget(
    memory: Memory, params: Params, data: TrainingSet, budget: float | None, seed: int
) -> tuple[Params, dict[str, float]]:
    """`params` held to the budget if they write more, and how far the threshold moves from there for BUDGETS.

    The last are metrics of a weights file by name, "threshold_shift@0.05" and so on; the episodes depend on the seed.
    """
    rate_at = write_rate(memory, params, data, seed)
    own = 0 if budget is None or rate_at(0) <= budget else shift_for(rate_at, budget)
    shifts = {f"threshold_shift@{b:g}": (shift_for(rate_at, b) - own) / _UNIT for b in BUDGETS}
    return memory.move_threshold(params, jnp.float32(own / _UNIT)) if own else params, shifts


def shift_for(rate_at: RateAt, budget: float) -> int:
    """By how many units the threshold rises for a rate of at most `budget`: where bisection finds that it is passed.

    Below 0 for a gate that writes less.
    """
    low, high = -_UNIT, _UNIT
    while rate_at(high) > budget:
        low, high = high, 2 * high
    while low > _LOWEST and rate_at(low) <= budget:
        low, high = 2 * low, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rate_at(middle) > budget else (low, middle)
    return high


def write_rate(memory: Memory, params: Params, data: TrainingSet, seed: int) -> RateAt:
    """The rate of a gate over recorded episodes; each threshold is looked at once."""
    zs, resets, inside = _in_lanes(data.once(_TICKS, stream(seed, "speak", "budget")))
    wrote = memory.writes(params, zs, resets)

    @cache
    def rate_at(shift: int) -> float:
        moved = memory.move_threshold(params, jnp.float32(shift / _UNIT))
        return float(np.asarray(wrote(moved))[inside].mean())

    return rate_at


def _in_lanes(rows: list[Row]) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Episodes end to end in lanes of about one length: features [T, L, D], resets and what is no padding [T, L]."""
    lanes: list[list[Row]] = [[] for _ in range(min(_LANES, len(rows)))]
    filled = np.zeros(len(lanes), int)
    for row in sorted(rows, key=lambda row: -len(row.weight)):
        emptiest = int(filled.argmin())
        lanes[emptiest].append(row)
        filled[emptiest] += len(row.weight)
    zs = np.zeros((filled.max(), len(lanes), rows[0].feature.shape[1]), np.float32)
    resets = np.zeros(zs.shape[:2], bool)
    for i, lane in enumerate(lanes):
        starts = np.cumsum([0, *(len(row.weight) for row in lane)])
        resets[starts[:-1], i] = True
        zs[: filled[i], i] = np.concatenate([row.feature for row in lane])
    return jnp.asarray(zs), jnp.asarray(resets), np.arange(len(zs))[:, None] < filled
