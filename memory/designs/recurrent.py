"""Recurrent baselines that write at every tick: a GRU, and linear attention with a learned decay.

Shapes: B rows, T ticks, D feature size.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float

from vlamem.memory.head import HeadConfig, HeadParams, init_head, propose
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


def says(
    head: HeadParams,
    config: HeadConfig,
    zn: Float[Array, "... D"],
    r: Float[Array, "... R"],
    trusted: Bool[Array, "..."],
) -> StepOut:
    """What a memory that writes at every trusted tick answers, given its read-out r; leading axes [B] or [T, B]."""
    nothing = jnp.zeros(trusted.shape)
    said = propose(head, config, zn @ head.z, r, trusted)
    return StepOut(*said, trusted, trusted.astype(jnp.float32), nothing, ~trusted, nothing)


class GruParams(NamedTuple):
    """Gates stacked as reset, update, candidate; `mean` and `scale` standardise the feature."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    x: Float[Array, "D three_n"]
    h: Float[Array, "n three_n"]
    bias: Float[Array, "three_n"]
    head: HeadParams


@dataclass(frozen=True)
class GruMemory:
    """A gated recurrent unit (Cho et al. 2014); the state is h [B, hidden], 4 bytes an entry.

    Attributes:
        size: D.
        head: what is proposed from h.
        hidden: entries of h; 1,056 of them are 4,224 bytes.
    """

    size: int
    head: HeadConfig = field(default_factory=lambda: HeadConfig(chunk=(8, 7)))
    hidden: int = 1056

    @property
    def feature_size(self) -> int:
        """D of the feature."""
        return self.size

    def init_params(self, key: Array) -> GruParams:
        """Fresh parameters."""
        from_x, head, *from_h = jax.random.split(key, 5)
        square, orthogonal = (self.hidden, self.hidden), initializers.orthogonal()
        return GruParams(
            mean=jnp.zeros(self.size),
            scale=jnp.ones(self.size),
            x=initializers.lecun_normal()(from_x, (self.size, 3 * self.hidden), jnp.float32),
            h=jnp.concatenate([orthogonal(k, square, jnp.float32) for k in from_h], axis=1),
            bias=jnp.zeros(3 * self.hidden),
            head=init_head(head, self.head, self.size, self.hidden),
        )

    def init(self, batch: int) -> Float[Array, "B n"]:
        """h = 0."""
        return jnp.zeros((batch, self.hidden))

    def step(
        self, params: GruParams, state: Float[Array, "B n"], z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[Float[Array, "B n"], StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.size)
        zn, trusted = standardise(z, params.mean, params.scale)
        h = reset_rows(state, jnp.zeros_like(state), reset)
        from_x, n = zn @ params.x + params.bias, self.hidden
        r, u = jnp.split(jax.nn.sigmoid(from_x[:, : 2 * n] + h @ params.h[:, : 2 * n]), 2, axis=-1)
        candidate = jnp.tanh(from_x[:, 2 * n :] + (r * h) @ params.h[:, 2 * n :])
        h = jnp.where(trusted[:, None], (1 - u) * h + u * candidate, h)
        return h, says(params.head, self.head, zn, h, trusted)


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
class LinearAttentionMemory:
    """S <- a S + i v k^T, n <- a n + i k, read S q / max(|n . q|, 1).

    The decay a and the strength i in (0, 1) are learned functions of the feature, so that it may pass over what does
    not matter; it writes at every tick nevertheless.

    Attributes:
        size: D.
        head: what is proposed from the read-out.
        key_size: d_k.
        value_size: d_v.
    """

    size: int
    head: HeadConfig = field(default_factory=lambda: HeadConfig(chunk=(8, 7)))
    key_size: int = 32
    value_size: int = 32

    @property
    def feature_size(self) -> int:
        """D of the feature."""
        return self.size

    def init_params(self, key: Array) -> LinearAttentionParams:
        """Fresh parameters; it keeps nearly everything at first."""
        keys = jax.random.split(key, 4)
        init = initializers.lecun_normal()
        k = init(keys[0], (self.size, self.key_size), jnp.float32)
        return LinearAttentionParams(
            mean=jnp.zeros(self.size),
            scale=jnp.ones(self.size),
            k=k,
            q=k + 0.1 * init(keys[1], (self.size, self.key_size), jnp.float32),
            v=init(keys[2], (self.size, self.value_size), jnp.float32),
            strength=jnp.zeros(self.size),
            strength_bias=jnp.zeros(()),
            decay=jnp.zeros(self.size),
            decay_bias=jnp.full((), 4.0),
            head=init_head(keys[3], self.head, self.size, self.value_size),
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
        check_feature_size(z.shape[-1], self.size)
        zn, trusted = standardise(z, params.mean, params.scale)
        S, n = reset_rows(state, self.init(z.shape[0]), reset)
        k, q = (x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12) for x in (zn @ params.k, zn @ params.q))
        i = jax.nn.sigmoid(zn @ params.strength + params.strength_bias) * trusted
        a = jnp.where(trusted, jax.nn.sigmoid(zn @ params.decay + params.decay_bias), 1.0)
        S = a[:, None, None] * S + (i[:, None] * (zn @ params.v))[:, :, None] * k[:, None, :]
        n = a[:, None] * n + i[:, None] * k
        r = jnp.einsum("bij,bj->bi", S, q) / jnp.maximum(jnp.abs(jnp.sum(n * q, -1, keepdims=True)), 1.0)
        return LinearAttentionState(S, n), says(params.head, self.head, zn, r, trusted)
