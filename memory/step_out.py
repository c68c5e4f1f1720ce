"""What one step of a memory gives; apart from the protocol, because the NumPy tick of a robot gives it without JAX."""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float


class StepOut(NamedTuple):
    """What one step of B rows gives; arrays of JAX or NumPy. For T ticks every field has a leading T axis.

    The NumPy tick gives it for one row: numbers for [B], and arrays without the leading axis.

    Attributes:
        confidence: [B], 0 to 1; 0 in refused rows.
        chunk: [B, H, A] proposed action chunk, or None.
        context: [B, C] residual on the policy's conditioning, or None.
        answer: [B, n] logits, or None; benchmarks ask for it, no policy does.
        wrote: [B], whether the row's state was written.
        gate: [B], 0 to 1, the gate's own figure; it is above 1/2 exactly where an unrefused row wrote.
        surprise: [B], 0 or more; what the memory calls prediction error, 0 where it has no such thing.
        refused: [B], rows whose feature was not finite or beyond FEATURE_LIMIT: neither written nor trusted.
        gate_loss: [B], the gate's own training objective, 0 for gates trained by the action error alone.
    """

    confidence: Float[Any, "B"]
    chunk: Float[Any, "B H A"] | None
    context: Float[Any, "B C"] | None
    answer: Float[Any, "B n"] | None
    wrote: Bool[Any, "B"]
    gate: Float[Any, "B"]
    surprise: Float[Any, "B"]
    refused: Bool[Any, "B"]
    gate_loss: Float[Any, "B"]
