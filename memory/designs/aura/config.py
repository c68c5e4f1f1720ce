"""Sizes and gate of an AURA memory, and of the head that it shares with the baselines."""

from dataclasses import dataclass, field

FEATURE_LIMIT = 1e3
"""Root mean square of a standardised feature row above which it is refused, as a row with NaN or infinity is."""

GATE_KINDS = (
    "learned",
    "counterfactual",
    "always",
    "never",
    "random",
    "periodic",
    "novelty",
    "reconstruction",
    "oracle",
)


@dataclass(frozen=True)
class HeadConfig:
    """What the head proposes; at least one of the three.

    Attributes:
        chunk: (H, A), horizon in control steps and action size of a proposed chunk, or None.
        context: C, size of the proposed context residual, 0 for none.
        answer: n, number of answers in a benchmark, 0 for none.
        hidden: width of the hidden layer.
    """

    chunk: tuple[int, int] | None = None
    context: int = 0
    answer: int = 0
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.chunk is None and self.context == 0 and self.answer == 0:
            raise ValueError("a head needs a chunk (H, A), a context size or a number of answers")
        if self.hidden < 1 or self.context < 0 or self.answer < 0 or (self.chunk and min(self.chunk) < 1):
            raise ValueError(f"sizes of a head must be positive, got {self}")

    @property
    def outputs(self) -> int:
        """Entries of the last layer: one for the confidence, then chunk, context and answer."""
        return 1 + (self.chunk[0] * self.chunk[1] if self.chunk else 0) + self.context + self.answer


@dataclass(frozen=True)
class AuraConfig:
    """Sizes and gate of an AURA memory.

    Attributes:
        feature_size: D of the frozen policy's feature, 16 to 4,096.
        head: what is proposed from the read-out.
        gate: one of GATE_KINDS.
        key_size: d_k.
        value_size: d_v; with d_k = d_v = 32 the state is (d_k*d_v + d_v)*4 = 4,224 bytes a row.
        gate_hidden: width of the gate's hidden layer.
        bound: of |W|, Frobenius; a write that would exceed it shrinks W and b together until |W| is the bound.
        rate: writes per tick of the random and periodic gates, in (0, 1]; the others do not read it.
        seed: of the random gate.
    """

    feature_size: int
    head: HeadConfig = field(default_factory=lambda: HeadConfig(chunk=(8, 7)))
    gate: str = "learned"
    key_size: int = 32
    value_size: int = 32
    gate_hidden: int = 32
    bound: float | None = None
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.feature_size <= 4096:
            raise ValueError(f"feature_size {self.feature_size} is outside 16..4096: project the feature first")
        if self.gate not in GATE_KINDS:
            raise ValueError(f"gate {self.gate!r} is not one of {', '.join(GATE_KINDS)}")
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate {self.rate} is outside (0, 1]: it is the share of ticks that may write")
        if self.bound is not None and not self.bound > 0:
            raise ValueError(f"bound {self.bound} of |W| must be positive, or None for no bound")
        if min(self.key_size, self.value_size, self.gate_hidden) < 1:
            raise ValueError(f"key_size, value_size and gate_hidden must be positive, got {self}")
