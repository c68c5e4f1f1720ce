"""Exact nearest neighbours in memory, by Euclidean distance.

Scores in single precision choose candidates; these are measured again in double precision, and more are taken until the
bound on the rounding of a score proves that no vector left out can be among the nearest. Vectors beyond the range in
which single precision squares are all measured in double precision. Of many vectors a contraction is scored first, a
fourth of the numbers; where it leaves few that can be among the nearest, these alone are measured.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.memory.success.retrieve.contraction import Contraction

_FIRST = 1024
_MARGIN = 3
"""Candidates for each neighbour asked for; more are fetched when these prove too few."""
_BLOCK = 32
_ROUNDING = 2.0**-23
"""Twice the unit rounding of single precision."""
_TINY = 2.0**-126
"""Smallest normal number of single precision: products below it may be rounded to zero."""
_RANGE = 1e17
"""Longest vector whose square single precision holds with room for a sum."""
_FEW = 256
"""Up to this many vectors, all are measured in double precision at once."""
_MANY = 16_384
"""From this many vectors on, contractions are kept."""
_SETTLED = 65_536
"""Directions that were taken from this many vectors are kept: to contract all anew holds a query up."""
_DIRECTIONS = 16
_LEFT = 1024
_SHARE = 64
"""Contractions may leave 1024 vectors, or one in 64: to measure more takes longer than to score all."""


class ExactIndex:
    """Vectors with ids, in groups; search is exact at any finite scale, equal distances in order of id.

    Args:
        size: of a vector, D.
        many: from how many vectors on contractions are kept.
    """

    def __init__(self, size: int, many: int = _MANY) -> None:
        self.size, self._many = size, many
        self._columns = np.zeros((size, _FIRST), np.float32)  # [D, N]: one query is scored a third faster than by rows
        self._squares = np.zeros(_FIRST, np.float32)
        self._ids = np.zeros(_FIRST, np.int64)
        self._groups = np.zeros(_FIRST, np.int64)
        self._n = 0
        self._longest = 0.0
        self._centre = np.zeros(size)
        self._contraction: Contraction | None = None
        self._contracted = 0
        self._short = np.zeros((0, _FIRST), np.float32)  # [d + 2, N]: contractions, and the squares of their lengths

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Int[np.ndarray, "N"]:
        """Ids in the order in which they were added."""
        return self._ids[: self._n]

    def add(self, vectors: Float[np.ndarray, "N D"], ids: Int[np.ndarray, "N"], groups: Int[np.ndarray, "N"]) -> None:
        """Adds vectors; `ids` are larger than all before. Raises ValueError for another vector size."""
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise ValueError(f"vectors are {list(vectors.shape)}, expected [N, {self.size}]: the size of this index")
        new = self._n + len(vectors)
        if new > len(self._ids):
            room = max(new, 2 * len(self._ids))
            for name in _ARRAYS:
                old = getattr(self, name)
                grown = np.zeros((*old.shape[:-1], room), old.dtype)
                grown[..., : self._n] = old[..., : self._n]
                setattr(self, name, grown)
        part = slice(self._n, new)
        self._columns[:, part], self._ids[part], self._groups[part] = vectors.T, ids, groups
        if self._n == 0 and len(vectors):
            self._centre = np.asarray(vectors, np.float64).mean(axis=0)
        self._n = new
        self._measure(part)
        self._contract(part)

    def remove(self, ids: Int[np.ndarray, "N"]) -> None:
        """Removes vectors by id; ids that are not there are passed over."""
        keep = ~np.isin(self.ids, ids)
        if keep.all():
            return
        n = int(keep.sum())
        for name in _ARRAYS:
            array = getattr(self, name)
            array[..., :n] = array[..., : self._n][..., keep]
        self._n = n

    def search(
        self, query: Float[np.ndarray, "D"], k: int, allowed: Int[np.ndarray, "G"] | None = None
    ) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        """Positions and squared distances (double precision) of the k nearest vectors, nearest first.

        With `allowed`, only vectors of these groups. Fewer than k come back when there are fewer.
        """
        mask = None if allowed is None else self._in_groups(allowed)
        total = self._n if mask is None else int(mask.sum())
        k = min(k, total)
        if k == 0:
            return np.zeros(0, np.int64), np.zeros(0)
        wide = np.asarray(query, np.float64)
        near = wide - self._centre
        away, centre = float(np.linalg.norm(near)), float(np.linalg.norm(self._centre))
        if total <= _FEW or max(away, centre, self._longest) > _RANGE:
            return self._nearest_of(np.arange(self._n) if mask is None else np.flatnonzero(mask), wide, k)
        left = self._left(wide, k, mask, away)
        if left is not None:
            return self._nearest_of(left, wide, k)
        scores, constant = self._scores(near, mask)
        doubt = self._rounding(away, centre)
        asked = min(total, _MARGIN * k)
        while True:
            at = smallest(scores, asked)
            found, distances = self._nearest_of(at, wide, k)
            # every vector left out scores at least as high as the last one taken
            if asked >= total or float(scores[at].max()) + constant - doubt > distances[-1]:
                return found, distances
            asked = min(total, 4 * asked)

    def _measure(self, part: slice) -> None:
        """Squared lengths from the centre, which may lie far from the origin: in double precision, rounded once."""
        centred = self._columns[:, part].astype(np.float64).T - self._centre
        squares = np.einsum("nd,nd->n", centred, centred)
        self._longest = max(self._longest, float(np.sqrt(squares.max(initial=0.0))))
        self._squares[part] = np.minimum(squares, np.finfo(np.float32).max)

    def _contract(self, part: slice) -> None:
        """Contracts new vectors; all of them, along new directions, when few have doubled since that was done."""
        if self._longest > _RANGE:  # all are measured in double precision from now on
            self._contraction = None
        if self._longest > _RANGE or (self._contraction is None and self._n < self._many):
            return
        if self._contraction is None or min(self._n, _SETTLED) >= 2 * self._contracted:
            self._contraction = Contraction.of(self._columns[:, : self._n], self._centre, min(_DIRECTIONS, self.size))
            self._contracted, part = self._n, slice(0, self._n)
            rows = self._contraction.basis.shape[1] + 2
            self._short = np.zeros((rows, len(self._ids)), np.float32)
        short = self._contraction.map(self._columns[:, part])
        self._short[:-1, part] = short
        squares = np.einsum("dn,dn->n", short, short, dtype=np.float64)
        self._short[-1, part] = np.minimum(squares, np.finfo(np.float32).max)

    def _left(
        self, query: Float[np.ndarray, "D"], k: int, mask: Bool[np.ndarray, "N"] | None, away: float
    ) -> Int[np.ndarray, "M"] | None:
        """Positions of all vectors that can be among the k nearest by their contractions; None where these are too many
        to be worth it, or contractions are not kept."""
        if self._contraction is None:
            return None
        short = self._contraction.map(query[:, None])[:, 0]
        scores = np.append(np.float32(-2.0) * short, np.float32(1.0)) @ self._short[:, : self._n]
        if mask is not None:
            scores[~mask] = np.inf
        near = smallest(scores, min(_MARGIN * k, len(scores)))
        if mask is not None:
            near = near[mask[near]]
        reach = float(np.sqrt(self._nearest_of(near, query, k)[1][-1]))  # the k nearest are no further away than this
        constant = float(np.dot(short.astype(np.float64), short))
        doubt = _rounding_of(len(short) + 1, self._longest, self._longest * away)
        limit = (reach + self._contraction.slack(self._longest, away)) ** 2 - constant + doubt
        left = np.flatnonzero(scores <= np.nextafter(np.float32(limit), np.float32(np.inf)))
        return left if len(left) <= max(_LEFT, _MARGIN * k, self._n // _SHARE) else None

    def _scores(
        self, near: Float[np.ndarray, "D"], mask: Bool[np.ndarray, "N"] | None
    ) -> tuple[Float[np.ndarray, "N"], float]:
        """Squared distances in single precision less a constant, and the constant; infinite where `mask` is False.

        |x - q|^2 = |x - c|^2 - 2 x (q - c) + 2 c (q - c) + |q - c|^2 with centre c: x itself is not shifted.
        """
        single = near.astype(np.float32)
        scores = np.float32(-2.0) * single @ self._columns[:, : self._n]
        scores += self._squares[: self._n]
        if mask is not None:
            scores[~mask] = np.inf
        return scores, float(2.0 * self._centre @ single + near @ near)

    def _rounding(self, away: float, centre: float) -> float:
        """Most by which a score may be off, for a query at this distance from the centre.

        A product of D terms is off by at most D u |x| |q - c| in any order of summation, with u the unit rounding
        (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); the other terms by a few units each.
        """
        return _rounding_of(self.size, self._longest, (self._longest + centre) * away)

    def _nearest_of(
        self, at: Int[np.ndarray, "M"], query: Float[np.ndarray, "D"], k: int
    ) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        vectors = np.ascontiguousarray(self._columns[:, at].T)
        distances = ((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
        order = np.lexsort((at, distances))[:k]
        return at[order], distances[order]

    def _in_groups(self, allowed: Int[np.ndarray, "G"]) -> Bool[np.ndarray, "N"]:
        groups = self._groups[: self._n]
        table = np.zeros(int(max(groups.max(initial=0), allowed.max(initial=0))) + 1, bool)
        table[allowed] = True
        return np.asarray(table[groups])


_ARRAYS = ("_columns", "_squares", "_ids", "_groups", "_short")
"""Attributes that have a vector's numbers in their last axis."""


def _rounding_of(size: int, longest: float, product: float) -> float:
    """Most by which |x|^2 - 2 x.q of `size` numbers is off in single precision; `product` bounds |x| |q|."""
    return (size + 8) * (_ROUNDING * (longest**2 + 2.0 * product) + _TINY)


def smallest(values: Float[np.ndarray, "N"], count: int) -> Int[np.ndarray, "count"]:
    """Positions of the `count` smallest values, in no order; block minima first, so that few are partitioned."""
    n = len(values)
    blocks = n // _BLOCK
    if blocks <= 2 * count:
        return np.argpartition(values, count - 1)[:count]
    # block b holds b, b + blocks, b + 2 blocks, ...: minima over the leading axis are vectorised
    minima = values[: blocks * _BLOCK].reshape(_BLOCK, blocks).min(axis=0)
    best = np.argpartition(minima, count - 1)[:count]
    at = (best + blocks * np.arange(_BLOCK)[:, None]).ravel()
    at = np.concatenate([at, np.arange(blocks * _BLOCK, n)])
    return at[np.argpartition(values[at], count - 1)[:count]]
