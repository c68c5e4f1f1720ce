"""What a full memory gives up."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.seeding import stream
from vlamem.memory.success.retrieve.segments import Shelf

Eviction = Literal["utility", "fifo", "random"]
EVICTIONS: tuple[Eviction, ...] = ("utility", "fifo", "random")
_USED, _MERGED, _REDUNDANT, _OLD = 0.25, 0.25, 1.0, 0.25


def utility(shelf: Shelf, threshold: float) -> Float[np.ndarray, "N"]:
    """How much each segment is worth keeping, in no unit.

    log(reliability) + log(1 + uses) / 4 + log(1 + merged) / 4 - redundancy - age / 4, where redundancy is 0 to 1 as the
    nearest other state's similarity goes from `threshold` to 1, and age is 0 for the newest and 1 for the oldest.
    """
    n = len(shelf)
    redundancy = np.clip((shelf.column("nearest") - threshold) / max(1e-9, 1.0 - threshold), 0.0, 1.0)
    age = 1.0 - np.arange(n) / max(1, n - 1)
    return np.asarray(
        np.log(shelf.reliability())
        + _USED * np.log1p(shelf.column("uses"))
        + _MERGED * np.log1p(shelf.column("merged"))
        - _REDUNDANT * redundancy
        - _OLD * age
    )


def victims(shelf: Shelf, count: int, eviction: Eviction, threshold: float, seed: int = 0) -> Int[np.ndarray, "count"]:
    """Ids of the `count` segments that go, or of all when there are fewer. Raises ValueError for an unknown policy."""
    ids = shelf.index.ids
    count = min(count, len(ids))
    if count <= 0:
        return np.zeros(0, np.int64)
    if eviction == "fifo":
        return ids[:count].copy()
    if eviction == "random":
        return stream(seed, "evict", int(ids[-1])).choice(ids, count, replace=False)
    if eviction == "utility":
        return ids[np.argsort(utility(shelf, threshold), kind="stable")[:count]]
    raise ValueError(f"eviction {eviction!r} is unknown: choose one of {', '.join(EVICTIONS)}")
