"""Which retrieved chunks agree as trajectories: dynamic time warping, and the largest group within reach of one."""

import importlib.util
from functools import cache

import numpy as np
from jaxtyping import Bool, Float

WINDOW = 4
"""Most steps by which one chunk may run ahead of another."""


def warped_distances(chunks: Float[np.ndarray, "K H A"], window: int = WINDOW) -> Float[np.ndarray, "K K"]:
    """Dynamic-time-warping distance of every two chunks, per step: Euclidean in action space, summed along the best
    alignment with `window` steps of slack, divided by H.

    dtaidistance computes it where it is installed (extra `success`), NumPy otherwise; the two agree.
    """
    k, horizon, _ = chunks.shape
    found = np.zeros((k, k))
    if k < 2:
        return found
    if _compiled():
        from dtaidistance import dtw_ndim

        upper = dtw_ndim.distance_matrix_fast(
            np.ascontiguousarray(chunks, np.float64),
            window=window + 1,
            inner_dist="euclidean",
            parallel=False,
            compact=True,
        )
        found[np.triu_indices(k, 1)] = np.asarray(upper) / horizon
    else:
        i, j = np.triu_indices(k, 1)
        found[i, j] = warped(chunks[i], chunks[j], window)
    return found + found.T


@cache
def _compiled() -> bool:
    return importlib.util.find_spec("dtaidistance") is not None


def warped(
    first: Float[np.ndarray, "N H A"], second: Float[np.ndarray, "N H A"], window: int = WINDOW
) -> Float[np.ndarray, "N"]:
    """The same distance for N pairs of chunks, by NumPy: one anti-diagonal of all pairs at a time."""
    n, horizon = first.shape[:2]
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    cost = np.linalg.norm(a[:, :, None] - b[:, None], axis=-1)
    total = np.full((n, horizon + 1, horizon + 1), np.inf)
    total[:, 0, 0] = 0.0
    for diagonal in range(2, 2 * horizon + 1):
        row = np.arange(max(1, diagonal - horizon), min(horizon, diagonal - 1) + 1)
        row = row[np.abs(2 * row - diagonal) <= window]
        column = diagonal - row
        before = np.minimum(total[:, row - 1, column], total[:, row, column - 1])
        total[:, row, column] = cost[:, row - 1, column - 1] + np.minimum(before, total[:, row - 1, column - 1])
    return np.asarray(total[:, horizon, horizon] / horizon)


def consistent(
    distances: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"], reach: float
) -> Bool[np.ndarray, "K"]:
    """The candidates within `reach` of the one that has the most weight within reach of it."""
    near = distances <= reach
    return np.asarray(near[int(np.argmax(near @ weights))])
