"""Eviction: which segments a full memory deletes."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.seeding import stream
from vlamem.memory.success.lifecycle.stages import EVICTIONS

_USED, _MERGED, _REDUNDANT, _OLD = 0.25, 0.25, 1.0, 0.25


@runtime_checkable
class UsageCounts(Protocol):
    """What an eviction policy may look at, oldest segment first; a SegmentIndex is one."""

    @property
    def ids(self) -> Int[np.ndarray, "N"]:
        """Ids, rising."""
        ...

    def column(self, name: str) -> Any:
        """[N] values: uses, successes, merged, nearest (similarity when stored), made [s since 1970]."""
        ...

    def reliability(self) -> Float[np.ndarray, "N"]:
        """Success rate after use, relative to the mean over all uses; 1 for segments never used."""
        ...


@runtime_checkable
class EvictionPolicy(Protocol):
    """Chooses what goes."""

    def __call__(self, segments: UsageCounts, count: int, threshold: float, seed: int) -> Int[np.ndarray, "count"]:
        """Ids of `count` segments, 1 to all of them.

        Args:
            segments: of which some go.
            count: how many.
            threshold: similarity from which on two states call for the same actions.
            seed: of whatever is drawn.
        """
        ...


def utility(segments: UsageCounts, threshold: float) -> Float[np.ndarray, "N"]:
    """How much each segment is worth keeping, in no unit.

    log(reliability) + log(1 + uses) / 4 + log(1 + merged) / 4 - redundancy - age / 4, where redundancy is 0 to 1 as the
    nearest other state's similarity goes from `threshold` to 1, and age is 0 for the newest and 1 for the oldest.
    """
    n = len(segments.ids)
    redundancy = np.clip((segments.column("nearest") - threshold) / max(1e-9, 1.0 - threshold), 0.0, 1.0)
    age = 1.0 - np.arange(n) / max(1, n - 1)
    return np.asarray(
        np.log(segments.reliability())
        + _USED * np.log1p(segments.column("uses"))
        + _MERGED * np.log1p(segments.column("merged"))
        - _REDUNDANT * redundancy
        - _OLD * age
    )


def least_useful(segments: UsageCounts, count: int, threshold: float, seed: int) -> Int[np.ndarray, "count"]:
    """Those of least utility; the oldest of equals."""
    return segments.ids[np.argsort(utility(segments, threshold), kind="stable")[:count]]


def oldest(segments: UsageCounts, count: int, threshold: float, seed: int) -> Int[np.ndarray, "count"]:
    """First in, first out."""
    return segments.ids[:count].copy()


def drawn(segments: UsageCounts, count: int, threshold: float, seed: int) -> Int[np.ndarray, "count"]:
    """Drawn at random: the control that a policy is compared with."""
    ids = segments.ids
    return stream(seed, "evict", int(ids[-1])).choice(ids, count, replace=False)


def victims(
    segments: UsageCounts, count: int, eviction: str, threshold: float, seed: int = 0
) -> Int[np.ndarray, "count"]:
    """Ids of the `count` segments that the named policy evicts, or of all when there are fewer.

    Raises ValueError for an unknown policy.
    """
    policy = EVICTIONS.get(eviction)
    count = min(count, len(segments.ids))
    return policy(segments, count, threshold, seed) if count > 0 else np.zeros(0, np.int64)
