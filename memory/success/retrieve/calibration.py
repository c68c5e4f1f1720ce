"""Calibration of the similarity threshold on recorded segments, per policy.

A pair of segments of different episodes and one instruction is alike when their chunks agree (warped distance within
reach), unlike otherwise. The threshold is the lowest similarity above which at least a wanted share of pairs is alike.
Published neighbourhood: 0.9992 for one encoder; it depends on the encoder, hence the measurement.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.seeding import stream
from vlamem.memory.success.experience.layout import EntryError, Layout, comparable
from vlamem.memory.success.retrieve.consistency import warped
from vlamem.memory.success.retrieve.metric import Metric, similarity

_BINS = 60
_FEWEST = 50
_FEWEST_ABOVE = 20
_WEIGHTS = (0.0, 0.25, 1.0, 4.0)
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class Calibration:
    """A calibrated metric and threshold, with the evidence behind them.

    Attributes:
        threshold: similarity from which on two states call for the same actions.
        proprioception_weight, centre: of the metric.
        precision: share of pairs above the threshold that are alike.
        coverage: share of alike pairs that are above it.
        pairs, alike: numbers of pairs behind it.
        edges: [bins + 1] of the two histograms, similarity; the lowest bin holds all below it.
        alike_counts, unlike_counts: [bins].
    """

    threshold: float
    proprioception_weight: float
    centre: tuple[float, ...] | None
    precision: float
    coverage: float
    pairs: int
    alike: int
    edges: tuple[float, ...]
    alike_counts: tuple[int, ...]
    unlike_counts: tuple[int, ...]

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, layout: Layout | None = None) -> "Calibration":
        """What `to_json` gave, for a memory of this `layout` where one is given.

        Raises EntryError naming the first value that makes no sense.
        """
        try:
            raw = json.loads(text)
            for name in ("centre", "edges", "alike_counts", "unlike_counts"):
                raw[name] = None if raw[name] is None else tuple(raw[name])
            found = cls(**raw)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EntryError(f"it is no calibration ({error}): calibrate anew") from error
        found.check(layout)
        return found

    def check(self, layout: Layout | None = None) -> None:
        """Raises EntryError naming the first value that makes no sense, or is not of this layout."""
        reals = {name: getattr(self, name) for name in ("threshold", "proprioception_weight", "precision", "coverage")}
        for name, value in reals.items():
            if not _is_real(value):
                raise EntryError(f"calibration's {name} is {value!r}: expected a finite number")
        if self.threshold > 1 or self.proprioception_weight < 0:
            raise EntryError(
                f"calibration's threshold {self.threshold} or weight {self.proprioception_weight} is out of range: "
                "expected at most 1 and at least 0"
            )
        lists = {name: getattr(self, name) for name in ("centre", "edges", "alike_counts", "unlike_counts")}
        for name, values in lists.items():
            if values is None and name == "centre":
                continue
            if not isinstance(values, tuple) or not all(map(_is_real, values)):
                raise EntryError(f"calibration's {name} is {str(values)[:60]}: expected finite numbers")
        if layout is not None and self.centre is not None and len(self.centre) != layout.key_size:
            raise EntryError(f"calibration's centre has {len(self.centre)} entries, keys have {layout.key_size}")


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def calibrate(
    layout: Layout,
    keys: Float[np.ndarray, "N K"],
    proprioception: Float[np.ndarray, "N P"],
    chunks: Float[np.ndarray, "N H A"],
    episodes: Sequence[int],
    instructions: Sequence[int],
    reach: float,
    precision: float = 0.9,
    most_pairs: int = 60_000,
    seed: int = 0,
) -> Calibration:
    """The metric and the threshold under which most alike pairs are found at the wanted precision.

    Tries keys as they are and centred, and several weights of the proprioception. Raises EntryError when too few pairs
    are alike or unlike to tell.
    """
    i, j = _pairs(np.asarray(episodes), np.asarray(instructions), most_pairs, seed)
    chunks = comparable(chunks, layout.parts)
    alike = np.concatenate(
        [
            warped(chunks[i[at : at + _PAIRS_AT_ONCE]], chunks[j[at : at + _PAIRS_AT_ONCE]]) <= reach
            for at in range(0, len(i), _PAIRS_AT_ONCE)
        ]
        or [np.zeros(0, bool)]
    )
    if min(alike.sum(), (~alike).sum()) < _FEWEST:
        raise EntryError(
            f"{int(alike.sum())} pairs of segments are alike and {int((~alike).sum())} unlike: expected {_FEWEST} of "
            "each; store more episodes of the job first, or change the reach"
        )
    best: tuple[float, Calibration] | None = None
    mean = np.asarray(keys, np.float64).mean(axis=0)
    for centre in (None, mean):
        for weight in _WEIGHTS:
            x = Metric(layout, weight, centre).embed(keys, proprioception).astype(np.float64)
            s = similarity(((x[i] - x[j]) ** 2).sum(axis=1))
            threshold, got, coverage = _threshold(s, alike, precision)
            edges = np.linspace(np.quantile(s, 0.02), 1.0, _BINS + 1)
            clipped = np.clip(s, edges[0], edges[-1])
            found = Calibration(
                threshold,
                weight,
                None if centre is None else tuple(float(c) for c in centre),
                got,
                coverage,
                len(i),
                int(alike.sum()),
                tuple(float(e) for e in edges),
                tuple(int(n) for n in np.histogram(clipped[alike], edges)[0]),
                tuple(int(n) for n in np.histogram(clipped[~alike], edges)[0]),
            )
            score = coverage + (int((s >= threshold).sum()) >= _FEWEST_ABOVE)
            if best is None or score > best[0]:
                best = score, found
    assert best is not None
    return best[1]


def _pairs(
    episodes: Int[np.ndarray, "N"], instructions: Int[np.ndarray, "N"], most: int, seed: int
) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "M"]]:
    """Pairs of segments of different episodes and one instruction, at most `most`, drawn from `seed`."""
    n = len(episodes)
    if n * (n - 1) // 2 <= 4 * most:
        i, j = np.triu_indices(n, 1)
    else:
        draw = stream(seed, "pairs")
        i, j = draw.integers(n, size=4 * most), draw.integers(n, size=4 * most)
    other = (episodes[i] != episodes[j]) & (instructions[i] == instructions[j])
    i, j = i[other], j[other]
    if len(i) > most:
        kept = stream(seed, "kept").choice(len(i), most, replace=False)
        i, j = i[kept], j[kept]
    return i, j


def _threshold(s: Float[np.ndarray, "M"], alike: Bool[np.ndarray, "M"], precision: float) -> tuple[float, float, float]:
    """The lowest threshold with at least `precision` of the pairs above it alike, that precision, and the coverage.

    Where none reaches it: the highest similarity of any unlike pair, above which nothing unlike was seen.
    """
    order = np.argsort(-s, kind="stable")
    above = np.cumsum(alike[order])
    share = above / np.arange(1, len(s) + 1)
    enough = np.arange(len(s)) >= min(_FEWEST_ABOVE, len(s)) - 1
    good = np.flatnonzero((share >= precision) & enough)
    if len(good):
        at = int(good[-1])
        return float(min(s[order[at]], 1.0)), float(share[at]), float(above[at] / alike.sum())
    strict = float(s[~alike].max())
    beyond = int((s[alike] > strict).sum())
    return min(float(np.nextafter(strict, np.inf)), 1.0), float(beyond > 0), float(beyond / alike.sum())
