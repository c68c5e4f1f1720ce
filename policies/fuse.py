"""What memories say to a frozen policy: ways of speaking, one row's memory, and how several proposals become one.

Two ways reach into the frozen policy itself, *chunk* (an intermediate state of its sampler) and *context* (a residual
on what it was told); *blend* and *alone* are comparison arms that act on or instead of its output.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float

from vlamem.core.proposal import Proposal

Way = Literal["context", "chunk", "both", "blend", "alone"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class SpeakOptions:
    """How a memory speaks.

    Attributes:
        way: "context" and "chunk" steer the frozen policy, "both" does both at once; "blend" mixes the proposed chunk
            into the policy's output, "alone" executes it in place of the policy.
        abstain_below: confidence under which a row is left to the policy as if there were no memory, 0 to 1.
        replan_on_write: whether a write cuts the running chunk short.
    """

    way: Way = "context"
    abstain_below: float = 0.5
    replan_on_write: bool = False

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ValueError(f"way {self.way!r} of speaking is unknown: choose one of {', '.join(WAYS)}")
        if not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below {self.abstain_below} is outside 0 to 1: it is a confidence")


class SuccessVoice(Protocol):
    """What a success memory answers at re-plan; implemented by vlamem.memory.success."""

    def query(
        self, key: Float[np.ndarray, "R K"], proprioception: Float[np.ndarray, "R P"], instruction: Sequence[str]
    ) -> Proposal:
        """A proposed chunk for each row, confidence 0 where nothing similar succeeded before."""
        ...


def fuse(proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """What several memories propose as none, one or two proposals that trust different rows.

    Each row takes the chunk, and the context, of whoever is surest of its own. Chunks are chosen, not averaged: the
    mean of two modes is neither. Where both reach a row, its confidence is the chunk's and the residual is scaled, so
    that each enters with its own weight. A row with a context alone and a row with a chunk cannot share a proposal,
    which has one confidence a row: hence two.
    """
    trusted = [p for p in proposals if np.any(p.confidence > 0)]
    if len(trusted) < 2:
        return tuple(trusted)
    of_chunk, chunk = _surest([(p.confidence, p.chunk) for p in trusted if p.chunk is not None])
    of_context, context = _surest([(p.confidence, p.context) for p in trusted if p.context is not None])
    if chunk is None or of_chunk is None:
        return () if of_context is None else (Proposal(of_context, None, context),)
    if context is None or of_context is None:
        return (Proposal(of_chunk, chunk),)
    share = np.divide(of_context, of_chunk, out=np.zeros_like(of_chunk), where=of_chunk > 0)
    alone = np.where(of_chunk > 0, 0, of_context).astype(np.float32)
    both = (Proposal(of_chunk, chunk, context * share[:, None]), Proposal(alone, None, context))
    return tuple(p for p in both if np.any(p.confidence > 0))


def _surest(
    said: list[tuple[Float[np.ndarray, "B"], np.ndarray]],
) -> tuple[Float[np.ndarray, "B"] | None, np.ndarray | None]:
    """Confidence [B] and what is said [B, ...], each row from the surest of them, the first where they tie."""
    if not said:
        return None, None
    confidence = np.stack([c for c, _ in said]).astype(np.float32)
    best = confidence.argmax(axis=0)
    rows = np.arange(confidence.shape[1])
    return confidence[best, rows], np.stack([x for _, x in said])[best, rows]
