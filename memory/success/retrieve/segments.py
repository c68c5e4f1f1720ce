"""The segment index: segments of one outcome in memory, with arrays beside it in the same order."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.records import SegmentColumns
from vlamem.memory.success.retrieve.index import ExactIndex
from vlamem.memory.success.retrieve.metric import Metric, similarity
from vlamem.memory.success.retrieve.prior import Candidates

_FIRST = 256
_PRIOR = 2.0
"""Uses that a segment is credited with, at the mean rate, before it was ever used."""


class SegmentIndex:
    """Segments of one outcome, findable by similarity of state."""

    def __init__(self, metric: Metric) -> None:
        layout: Layout = metric.layout
        self.metric, self.index = metric, ExactIndex(metric.size)
        self._columns: dict[str, np.ndarray] = {
            "chunk": np.zeros((_FIRST, layout.horizon, layout.action_size), np.float32),
            "uses": np.zeros(_FIRST, np.int64),
            "successes": np.zeros(_FIRST, np.int64),
            "merged": np.zeros(_FIRST, np.int64),
            "nearest": np.zeros(_FIRST),
            "made": np.zeros(_FIRST),
            "checksum": np.zeros(_FIRST, np.int64),
        }

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> Int[np.ndarray, "N"]:
        """Ids in the order in which segments were added, oldest first."""
        return self.index.ids

    def column(self, name: str) -> Any:
        """One value a segment, in the order of `ids`; may be written to."""
        return self._columns[name][: len(self)]

    def add(self, stored: SegmentColumns) -> None:
        """Adds segments in order of id."""
        if not len(stored):
            return
        start, new = len(self), len(self) + len(stored)
        if new > len(self._columns["uses"]):
            room = max(new, 2 * len(self._columns["uses"]))
            for name, old in self._columns.items():
                grown = np.zeros((room, *old.shape[1:]), old.dtype)
                grown[:start] = old[:start]
                self._columns[name] = grown
        for name, column in self._columns.items():
            column[start:new] = getattr(stored, name)
        self.index.add(self.metric.embed(stored.key, stored.proprioception), stored.ids, stored.instruction)

    def remove(self, ids: Int[np.ndarray, "N"]) -> None:
        """Removes segments by id."""
        keep = ~np.isin(self.ids, ids)
        n = int(keep.sum())
        for column in self._columns.values():
            column[:n] = column[: len(self)][keep]
        self.index.remove(ids)

    def places(self, ids: Int[np.ndarray, "N"]) -> Int[np.ndarray, "M"]:
        """Positions of those of `ids` that are here."""
        at = np.searchsorted(self.ids, ids)
        at = np.minimum(at, max(0, len(self) - 1))
        return np.asarray(at[self.ids[at] == ids]) if len(self) else np.zeros(0, np.int64)

    def credit(self, ids: Int[np.ndarray, "N"], success: bool) -> None:
        """Counts one use of each segment."""
        at = self.places(ids)
        self.column("uses")[at] += 1
        self.column("successes")[at] += int(success)

    def nearest(
        self, state: Float[np.ndarray, "D"], k: int, allowed: Int[np.ndarray, "G"] | None, least: float = -np.inf
    ) -> Candidates:
        """The k segments nearest to an embedded state, among those of the allowed instructions.

        Of those less similar than `least` the nearest alone comes back, where there is none other.
        """
        at, distances = self.index.search(state, k, allowed)
        alike = similarity(distances)
        kept = max(1, int((alike >= least).sum()))
        at, alike = at[:kept], alike[:kept]
        return Candidates(self.ids[at], alike, self.column("chunk")[at], self.reliability(at))

    def reliability(self, at: Int[np.ndarray, "N"] | slice = slice(None)) -> Float[np.ndarray, "N"]:
        """How often episodes succeeded after a segment was used, relative to the mean over all uses; 1 if never used.

        A segment's own rate is shrunk towards the mean, as if it had been used twice more at the mean rate.
        """
        uses, successes = self.column("uses"), self.column("successes")
        total = int(uses.sum())
        if total == 0:
            return np.ones(len(self))[at]
        mean = max(0.05, float(successes.sum()) / total)
        own = (successes[at] + _PRIOR * mean) / (uses[at] + _PRIOR)
        return np.asarray(np.clip(own / mean, 0.05, 2.0))
