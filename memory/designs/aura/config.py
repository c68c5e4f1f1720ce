"""Sizes and gate of an AURA memory; needs no JAX."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlamem.memory.config import HeadConfig as HeadConfig
from vlamem.memory.config import checked_settings

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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "AuraConfig":
        """From what JSON makes of it. Raises ValueError for an unknown setting."""
        return cls(**checked_settings(cls, {**config, "head": HeadConfig.from_config(config["head"])}))
