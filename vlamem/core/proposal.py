"""What a memory says to a frozen policy."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Proposal:
    """What a memory proposes for the next action chunk, one row per environment.

    Rows with confidence 0 abstain: the policy answers them as if there were no memory, bit for bit.

    Attributes:
        confidence: [B], 0 to 1.
        chunk: [B, H, A] in the policy's normalised action space, or None when the memory proposes no chunk.
        context: [B, C], added to the policy's conditioning as a residual, or None.
    """

    confidence: Float[np.ndarray, "B"]
    chunk: Float[np.ndarray, "B H A"] | None = None
    context: Float[np.ndarray, "B C"] | None = None
