"""The head that turns a memory's read-out into a proposal; AURA-Mem and the baselines share it."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float


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


class HeadParams(NamedTuple):
    """One hidden layer over [z~, r], kept in two parts, since what z~ adds can be made ahead of time."""

    z: Float[Array, "D hidden"]
    r: Float[Array, "R hidden"]
    bias: Float[Array, "hidden"]
    out: Float[Array, "hidden outputs"]
    out_bias: Float[Array, "outputs"]


class Answers(NamedTuple):
    """What a head says; leading axes [B] or [T, B], fields as in MemoryOut."""

    confidence: Float[Array, "..."]
    chunk: Float[Array, "... H A"] | None
    context: Float[Array, "... C"] | None
    answer: Float[Array, "... n"] | None


def init_head(key: Array, config: HeadConfig, feature_size: int, read_size: int) -> HeadParams:
    """Fresh head parameters for features of `feature_size` and a read-out of `read_size`."""
    first, second = jax.random.split(key)
    both = initializers.lecun_normal()(first, (feature_size + read_size, config.hidden), jnp.float32)
    # the read-out is a few entries beside many of the feature: at equal weights the head would learn to do without it
    return HeadParams(
        z=both[:feature_size],
        r=both[feature_size:] * jnp.sqrt((feature_size + read_size) / read_size),
        bias=jnp.zeros(config.hidden),
        out=initializers.lecun_normal()(second, (config.hidden, config.outputs), jnp.float32),
        out_bias=jnp.zeros(config.outputs),
    )


def propose(
    params: HeadParams,
    config: HeadConfig,
    z_part: Float[Array, "... hidden"],
    r: Float[Array, "... R"],
    trusted: Bool[Array, "..."],
) -> Answers:
    """head([z~, r]) given `z_part` = z~ @ params.z; confidence is 0 where the feature is not trusted."""
    hidden = jax.nn.relu(z_part + r @ params.r + params.bias)
    y = hidden @ params.out + params.out_bias
    lead = y.shape[:-1]
    confidence = jnp.where(trusted, jax.nn.sigmoid(y[..., 0]), 0.0)
    at = 1
    chunk = context = answer = None
    if config.chunk:
        size = config.chunk[0] * config.chunk[1]
        chunk, at = y[..., at : at + size].reshape(*lead, *config.chunk), at + size
    if config.context:
        context, at = y[..., at : at + config.context], at + config.context
    if config.answer:
        answer = y[..., at:]
    return Answers(confidence, chunk, context, answer)
