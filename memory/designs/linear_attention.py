"""Linear attention with a learned decay: it writes at every tick. Shapes: B rows, D feature size."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import unit
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class LinearAttentionParams(NamedTuple):
    """Projections of a decaying linear attention; `strength` and `decay` weigh the feature for i and a."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    k: Float[Array, "D d_k"]
    q: Float[Array, "D d_k"]
    v: Float[Array, "D d_v"]
    strength: Float[Array, "D"]
    strength_bias: Float[Array, ""]
    decay: Float[Array, "D"]
    decay_bias: Float[Array, ""]
    head: HeadParams


class LinearAttentionState(NamedTuple):
    """S, the decayed sum of i v k^T, and n, that of i k: 4,224 bytes at d_k = d_v = 32."""

    S: Float[Array, "B d_v d_k"]
    n: Float[Array, "B d_k"]


@dataclass(frozen=True)
class LinearAttentionMemory(MemoryDesign):
    """S <- a S + i v k^T, n <- a n + i k, read S q / max(|n . q|, 1).

    The decay a and the strength i in (0, 1) are learned functions of the feature, so that it may pass over what does
    not matter; it writes at every tick nevertheless.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        key_size: d_k.
        value_size: d_v.
    """

    feature_size: int
    head: HeadConfig
    key_size: int = 32
    value_size: int = 32

    def init_params(self, key: Array) -> LinearAttentionParams:
        """Fresh parameters; it keeps nearly everything at first."""
        keys = jax.random.split(key, 4)
        init = initializers.lecun_normal()
        k = init(keys[0], (self.feature_size, self.key_size), jnp.float32)
        return LinearAttentionParams(
            mean=jnp.zeros(self.feature_size),
            scale=jnp.ones(self.feature_size),
            k=k,
            q=k + 0.1 * init(keys[1], (self.feature_size, self.key_size), jnp.float32),
            v=init(keys[2], (self.feature_size, self.value_size), jnp.float32),
            strength=jnp.zeros(self.feature_size),
            strength_bias=jnp.zeros(()),
            decay=jnp.zeros(self.feature_size),
            decay_bias=jnp.full((), 4.0),
            head=init_head(keys[3], self.head, self.feature_size, self.value_size),
        )

    def init(self, batch: int) -> LinearAttentionState:
        """The empty state: zeros."""
        return LinearAttentionState(
            jnp.zeros((batch, self.value_size, self.key_size)), jnp.zeros((batch, self.key_size))
        )

    def step(
        self,
        params: LinearAttentionParams,
        state: LinearAttentionState,
        z: Feature,
        reset: Rows,
        event: Rows | None = None,
    ) -> tuple[LinearAttentionState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        S, n = reset_rows(state, self.init(z.shape[0]), reset)
        k, q = unit(zn @ params.k), unit(zn @ params.q)
        i = jax.nn.sigmoid(zn @ params.strength + params.strength_bias) * trusted
        a = jnp.where(trusted, jax.nn.sigmoid(zn @ params.decay + params.decay_bias), 1.0)
        S = a[:, None, None] * S + (i[:, None] * (zn @ params.v))[:, :, None] * k[:, None, :]
        n = a[:, None] * n + i[:, None] * k
        r = jnp.einsum("bij,bj->bi", S, q) / jnp.maximum(jnp.abs(jnp.sum(n * q, -1, keepdims=True)), 1.0)
        return LinearAttentionState(S, n), ungated_step_out(params.head, self.head, zn, r, trusted)
