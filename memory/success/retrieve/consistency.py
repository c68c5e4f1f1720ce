"""Which retrieved chunks agree as trajectories: dynamic time warping, and the largest group within reach of one."""

import numpy as np
from jaxtyping import Bool, Float

WINDOW = 4
"""Most steps by which one chunk may run ahead of another (Sakoe-Chiba band)."""


def warped_distances(chunks: Float[np.ndarray, "K H A"], window: int = WINDOW) -> Float[np.ndarray, "K K"]:
    """Dynamic-time-warping distance of every two of K chunks; see `warped`."""
    found = np.zeros((len(chunks), len(chunks)))
    i, j = np.triu_indices(len(chunks), 1)
    found[i, j] = warped(chunks[i], chunks[j], window)
    return found + found.T


def warped(
    first: Float[np.ndarray, "N H A"], second: Float[np.ndarray, "N H A"], window: int = WINDOW
) -> Float[np.ndarray, "N"]:
    """Dynamic-time-warping distance of N pairs of chunks, per step: Euclidean in action space, summed along the best
    alignment with `window` steps of slack, divided by H.

    Steps i and j of a pair lie on the anti-diagonal i + j, `offset` = i - j beside its middle. All pairs take one
    anti-diagonal at a time, each from the two before it, and only the band within the window is kept.
    """
    n, horizon = first.shape[:2]
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    widest = min(window, horizon - 1)
    middle = widest + 1
    total = np.full((2 * horizon - 1, 2 * widest + 3, n), np.inf)  # [i + j, offset, pair], first the cost of each step
    for offset in range(-widest, widest + 1):
        i, j, steps = max(0, offset), max(0, -offset), horizon - abs(offset)
        apart = a[:, i : i + steps] - b[:, j : j + steps]
        np.sqrt(np.einsum("nha,nha->hn", apart, apart), out=total[abs(offset) :: 2, middle + offset][:steps])
    before, last = np.full((2, *total.shape[1:]), np.inf)
    before[middle] = 0.0
    for now in total:
        best = np.minimum(last[:-2], last[2:])
        now[1:-1] += np.minimum(best, before[1:-1], out=best)
        before, last = last, now
    return np.asarray(total[-1, middle] / horizon)


def consistent(
    distances: Float[np.ndarray, "K K"], weights: Float[np.ndarray, "K"], reach: float
) -> Bool[np.ndarray, "K"]:
    """The candidates within `reach` of the one that has the most weight within reach of it."""
    near = distances <= reach
    return np.asarray(near[int(np.argmax(near @ weights))])
