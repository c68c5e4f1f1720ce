"""The head that turns a memory's read-out into a proposal; every design here has this one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float

from vlamem.memory.config import HeadConfig as HeadConfig
from vlamem.memory.protocol import StepOut


class HeadParams(NamedTuple):
    """One hidden layer over [z~, r], kept in two parts, since what z~ adds can be made ahead of time."""

    z: Float[Array, "D hidden"]
    r: Float[Array, "R hidden"]
    bias: Float[Array, "hidden"]
    out: Float[Array, "hidden outputs"]
    out_bias: Float[Array, "outputs"]


Proposed = tuple[Array, Array | None, Array | None, Array | None]
"""Confidence, chunk, context and answer: the first fields of a StepOut."""


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
) -> Proposed:
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
    return confidence, chunk, context, answer


def ungated_step_out(
    head: HeadParams,
    config: HeadConfig,
    zn: Float[Array, "... D"],
    r: Float[Array, "... R"],
    trusted: Bool[Array, "..."],
) -> StepOut:
    """The answer of a memory that writes at every trusted tick, given its read-out r; leading axes [B] or [T, B]."""
    nothing = jnp.zeros(trusted.shape)
    proposed = propose(head, config, zn @ head.z, r, trusted)
    return StepOut(*proposed, trusted, trusted.astype(jnp.float32), nothing, ~trusted, nothing)
