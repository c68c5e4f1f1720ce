"""Exact nearest neighbours in memory, by Euclidean distance.

Two engines give the same answer: NumPy reads every float32 vector, faiss (when installed) reads half-precision copies.
Either proposes candidates; these are measured again in double precision, and more are taken until no vector that was
left out can be nearer than the last one returned. Recall is 1 by proof, not by luck.
"""

import importlib.util
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Engine = Literal["auto", "numpy", "faiss"]
_FIRST = 1024
_MARGIN = 3
"""Candidates for each neighbour asked for; more are fetched when these prove too few."""
_BLOCK = 64
_HALF = 2.0**-10
_SINGLE = 2.0**-20
"""Bounds on a vector's relative rounding: twice the unit of half precision; a sum of up to a few hundred float32."""
_FEW = 256
"""Up to this many vectors, all are measured in double precision at once."""
_PLAIN = 4096
"""Below this many vectors NumPy is as quick."""


def default_engine() -> Engine:
    """faiss where it is installed."""
    return "faiss" if importlib.util.find_spec("faiss") else "numpy"


class ExactIndex:
    """Vectors with ids, in groups; search is exact.

    Args:
        size: of a vector.
        engine: "numpy", "faiss" (extra `success`), or "auto" for whichever is there.

    Raises ModuleNotFoundError for engine "faiss" without faiss.
    """

    def __init__(self, size: int, engine: Engine = "auto") -> None:
        self.size, self.engine = size, default_engine() if engine == "auto" else engine
        self._vectors = np.zeros((_FIRST, size), np.float32)
        self._squares = np.zeros(_FIRST, np.float32)
        self._ids = np.zeros(_FIRST, np.int64)
        self._groups = np.zeros(_FIRST, np.int64)
        self._n = 0
        self._longest = 0.0
        self._faiss: Any = None
        self._centre = np.zeros(size, np.float32)
        if self.engine == "faiss":
            import faiss

            self._library: Any = faiss

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Int[np.ndarray, "N"]:
        """Ids in the order in which they were added."""
        return self._ids[: self._n]

    @property
    def vectors(self) -> Float[np.ndarray, "N D"]:
        """Vectors in that order; not to be written to."""
        return self._vectors[: self._n]

    def add(self, vectors: Float[np.ndarray, "N D"], ids: Int[np.ndarray, "N"], groups: Int[np.ndarray, "N"]) -> None:
        """Adds vectors; `ids` are larger than all before. Raises ValueError for another vector size."""
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise ValueError(f"vectors are {list(vectors.shape)}, this index has size {self.size}")
        new = self._n + len(vectors)
        if new > len(self._ids):
            room = max(new, 2 * len(self._ids))
            for name in ("_vectors", "_squares", "_ids", "_groups"):
                old = getattr(self, name)
                grown = np.zeros((room, *old.shape[1:]), old.dtype)
                grown[: self._n] = old[: self._n]
                setattr(self, name, grown)
        if self._n == 0 and len(vectors):
            self._centre = vectors.mean(axis=0).astype(np.float32)
        part = slice(self._n, new)
        self._vectors[part], self._ids[part], self._groups[part] = vectors, ids, groups
        centred = self._vectors[part] - self._centre
        self._squares[part] = np.einsum("nd,nd->n", centred, centred)
        self._longest = max(self._longest, float(np.sqrt(self._squares[part].max(initial=0.0))))
        self._n = new
        self._feed(centred)

    def remove(self, ids: Int[np.ndarray, "N"]) -> None:
        """Removes vectors by id; ids that are not there are passed over."""
        keep = ~np.isin(self.ids, ids)
        if keep.all():
            return
        n = int(keep.sum())
        for name in ("_vectors", "_squares", "_ids", "_groups"):
            array = getattr(self, name)
            array[:n] = array[: self._n][keep]
        self._n, self._faiss = n, None
        self._feed(self.vectors - self._centre)

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
        if total <= _FEW:
            return self._nearest_of(np.arange(self._n) if mask is None else np.flatnonzero(mask), wide, k)
        near = (wide - self._centre).astype(np.float32)
        asked = min(total, _MARGIN * k)
        while True:
            at, last = self._candidates(near, asked, mask)
            found, distances = self._nearest_of(at, wide, k)
            if asked >= total or self._proven(float(distances[-1]), last, float(np.linalg.norm(near))):
                return found, distances
            asked = min(total, 4 * asked)

    def _nearest_of(
        self, at: Int[np.ndarray, "M"], query: Float[np.ndarray, "D"], k: int
    ) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        distances = ((self._vectors[at].astype(np.float64) - query) ** 2).sum(axis=1)
        order = np.lexsort((at, distances))[:k]
        return at[order], distances[order]

    def _in_groups(self, allowed: Int[np.ndarray, "G"]) -> Bool[np.ndarray, "N"]:
        groups = self._groups[: self._n]
        table = np.zeros(int(max(groups.max(initial=0), allowed.max(initial=0))) + 1, bool)
        table[allowed] = True
        return np.asarray(table[groups])

    def _proven(self, kth: float, last: float, query: float) -> bool:
        """Whether a vector left out, whose approximate squared distance is `last` or more, must be beyond `kth`."""
        if self._faiss is not None:
            away = _HALF * self._longest + _SINGLE * (query + self._longest)
            return bool(np.sqrt(max(0.0, last)) - away >= np.sqrt(kth))
        return last - _SINGLE * (query + self._longest) ** 2 >= kth

    def _candidates(
        self, query: Float[np.ndarray, "D"], count: int, mask: Bool[np.ndarray, "N"] | None
    ) -> tuple[Int[np.ndarray, "count"], float]:
        if self._faiss is not None:
            parameters = None
            if mask is not None:
                bits = np.packbits(mask, bitorder="little")
                selector = self._library.IDSelectorBitmap(bits)
                parameters = self._library.SearchParameters(sel=selector)
            distances, at = self._faiss.search(query[None], count, params=parameters)
            return at[0], float(distances[0, -1])
        scores = self._squares[: self._n] - 2.0 * (self.vectors @ query - self._centre @ query) + query @ query
        if mask is not None:
            scores[~mask] = np.inf
        at = smallest(scores, count)
        return at, float(scores[at].max())

    def _feed(self, centred: Float[np.ndarray, "N D"]) -> None:
        if self.engine != "faiss" or self._n < _PLAIN:
            return
        if self._faiss is None:
            half = self._library.ScalarQuantizer.QT_fp16
            self._faiss = self._library.IndexScalarQuantizer(self.size, half, self._library.METRIC_L2)
            centred = self.vectors - self._centre
        self._faiss.add(np.ascontiguousarray(centred, np.float32))


def smallest(values: Float[np.ndarray, "N"], count: int) -> Int[np.ndarray, "count"]:
    """Positions of the `count` smallest values, in no order; block minima first, so that few are partitioned."""
    n = len(values)
    blocks = n // _BLOCK
    if blocks <= 2 * count:
        return np.argpartition(values, count - 1)[:count]
    minima = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).min(axis=1)
    best = np.argpartition(minima, count - 1)[:count]
    at = (best[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
    at = np.concatenate([at, np.arange(blocks * _BLOCK, n)])
    return at[np.argpartition(values[at], count - 1)[:count]]
