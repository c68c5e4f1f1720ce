"""What a demonstration teaches when a person, or another policy, acted in a part of it only."""

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.core.observation import Encoding
from vlamem.memory.train.conditioning import Conditioned
from vlamem.policies.choice import contradiction, disagreement
from vlamem.policies.protocol import FrozenPolicy, Teachable

__all__ = ["conditioned", "whole_chunks"]

_TAKES_OVER = 4
"""Control steps after which what a demonstrator does says no more that the policy would have done another thing."""


def whole_chunks(demonstrated: Bool[np.ndarray, "T"], horizon: int) -> Bool[np.ndarray, "T"]:
    """Control steps from which on a whole chunk was demonstrated, or to the end for half of one or more."""
    ticks = len(demonstrated)
    last = np.minimum(np.arange(ticks) + horizon, ticks)
    undone = np.concatenate([[0], np.cumsum(~demonstrated)])
    found: Bool[np.ndarray, T] = (undone[last] == undone[:ticks]) & (last - np.arange(ticks) >= horizon // 2)
    return found


def conditioned(
    policy: FrozenPolicy,
    encoding: Encoding,
    ticks: Int[np.ndarray, "N"],
    demonstrated: Bool[np.ndarray, "T"],
    chunks: Float[np.ndarray, "N H A"],
    rng: np.random.Generator,
) -> Conditioned:
    """What the policy read at control steps, and how much each is a choice.

    Where a demonstrator takes over it is one as far as what they do is from what the policy samples: there all samples
    may agree on what is wrong. Raises ValueError for a policy that is not Teachable.
    """
    if not isinstance(policy, Teachable):
        raise ValueError(f"policy '{policy.spec.name}' gives no gradient of its loss: no memory can be fitted to it")
    unsure = disagreement(policy, encoding, rng)
    began = np.flatnonzero(demonstrated & ~np.concatenate([[True], demonstrated[:-1]]))
    since = ticks[:, None] - began
    fresh = ((since >= 0) & (since < _TAKES_OVER)).any(axis=1)
    if fresh.any():
        at = np.flatnonzero(fresh)
        unsure[at] = np.maximum(unsure[at], contradiction(policy, encoding.rows(at), chunks[at], rng))
    return Conditioned(ticks, unsure.astype(np.float32), policy.pack(encoding))
