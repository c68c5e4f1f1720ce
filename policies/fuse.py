"""What several memories propose, as one proposal: fused row by row, sampled once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vlamem.core.proposal import Proposal


def fuse(proposals: Sequence[Proposal]) -> Proposal | None:
    """One proposal out of several; None where all abstain.

    Each row takes the chunk of whoever weighs its own most, and the context of whoever weighs its own most, the first
    where they tie. Chunks are chosen, not averaged: the mean of two modes is neither. Offsets are added to one another.
    """
    trusted = [p for p in proposals if not p.abstains]
    if len(trusted) < 2:  # untouched, so that a memory beside others that abstain is that memory alone, bit for bit
        return trusted[0] if trusted else None
    chunk, chunk_weight = _surest([(p.chunk, p.chunk_weight) for p in trusted])
    context, context_weight = _surest([(p.context, p.context_weight) for p in trusted])
    offsets = [p.offset for p in trusted if p.offset is not None]
    return Proposal(chunk, chunk_weight, context, context_weight, np.sum(offsets, axis=0) if offsets else None)


def _surest(
    given: list[tuple[np.ndarray | None, Float[np.ndarray, "B"]]],
) -> tuple[np.ndarray | None, Float[np.ndarray, "B"]]:
    """What is proposed [B, ...] and its weight [B], each row from the largest weight."""
    proposed = [(x, weight) for x, weight in given if x is not None]
    if not proposed:
        return None, np.zeros_like(given[0][1])
    weights = np.stack([weight for _, weight in proposed]).astype(np.float32)
    # argmax takes the first of equals: a tie is settled by the order in which memories were given, in every run
    best, rows = weights.argmax(axis=0), np.arange(weights.shape[1])
    return np.stack([x for x, _ in proposed])[best, rows], weights[best, rows]
