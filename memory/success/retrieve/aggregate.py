"""One chunk out of several, each action entry averaged on the manifold that it lives on."""

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.layout import ActionPart

_ROUNDS = 8
_CLOSE = 1e-6


def aggregate(
    chunks: Float[np.ndarray, "K H A"], weights: Float[np.ndarray, "K"], parts: tuple[ActionPart, ...]
) -> Float[np.ndarray, "H A"]:
    """The weighted mean of K chunks: linear entries by arithmetic mean, rotations by the Frechet mean on SO(3), votes
    by the side with more weight, at the mean of those on it.

    `weights` are positive and sum to 1. The result is within each part's range.
    """
    if len(chunks) == 1:
        return np.asarray(chunks[0], np.float32)
    mean = np.empty(chunks.shape[1:], np.float64)
    start = 0
    for part in parts:
        entries = np.asarray(chunks[:, :, start : start + part.size], np.float64)
        if part.kind == "linear":
            value = np.einsum("k,kha->ha", weights, entries)
        elif part.kind == "vote":
            value = _vote(entries, weights, 0.5 * (part.low + part.high))
        elif part.kind == "axis_angle":
            value = rotation_mean(entries * part.scale, weights) / part.scale
        else:
            value = _quaternion_mean(entries, weights)
        mean[:, start : start + part.size] = np.clip(value, part.low, part.high)
        start += part.size
    return mean.astype(np.float32)


def rotation_mean(vectors: Float[np.ndarray, "K H 3"], weights: Float[np.ndarray, "K"]) -> Float[np.ndarray, "H 3"]:
    """The weighted Frechet mean of K axis-angle rotations [rad] at each of H steps.

    It is the rotation from which the weighted sum of squared angles is least, found by steps in its tangent space from
    the one of most weight. Raises no error for far-apart rotations, whose mean need not be unique: the one found then
    is the nearest to that beginning.
    """
    k, horizon, _ = vectors.shape
    start = vectors[int(np.argmax(weights))]
    if np.abs(vectors - start).max() < _CLOSE:
        return np.asarray(start)
    from scipy.spatial.transform import Rotation

    mean = Rotation.from_rotvec(start)
    each = Rotation.from_rotvec(vectors.reshape(-1, 3))
    for _ in range(_ROUNDS):
        there = Rotation.from_quat(np.tile(mean.as_quat(), (k, 1)))
        steps = (there.inv() * each).as_rotvec().reshape(k, horizon, 3)
        step = np.einsum("k,kha->ha", weights, steps)
        mean = mean * Rotation.from_rotvec(step)
        if np.abs(step).max() < _CLOSE:
            break
    return np.asarray(mean.as_rotvec())


def _quaternion_mean(entries: Float[np.ndarray, "K H 4"], weights: Float[np.ndarray, "K"]) -> Float[np.ndarray, "H 4"]:
    from scipy.spatial.transform import Rotation

    k, horizon, _ = entries.shape
    scalar_last = np.roll(entries, -1, axis=-1).reshape(-1, 4)
    mean = rotation_mean(Rotation.from_quat(scalar_last).as_rotvec().reshape(k, horizon, 3), weights)
    return np.roll(Rotation.from_rotvec(mean).as_quat(canonical=True), 1, axis=-1)


def _vote(
    entries: Float[np.ndarray, "K H n"], weights: Float[np.ndarray, "K"], middle: float
) -> Float[np.ndarray, "H n"]:
    high = entries > middle
    w = np.broadcast_to(weights[:, None, None], entries.shape)
    for_high = (w * high).sum(axis=0)
    side = high == (for_high > 0.5 * weights.sum())
    kept = w * side
    return np.asarray((kept * entries).sum(axis=0) / kept.sum(axis=0))
