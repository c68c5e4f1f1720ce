"""A Hebbian matrix whose writes are scaled by relevance. Shapes: B rows, D feature size, d size of keys and values."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import Pairs, check_sizes, init_pairs, project, read_matrix, unit, unless_refused
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class HebbianParams(NamedTuple):
    """Projections; `relevance` weighs the feature, `resonance` its likeness to the context, in the logit of a write."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    relevance: Float[Array, "D"]
    relevance_bias: Float[Array, ""]
    resonance: Float[Array, ""]
    leak_logit: Float[Array, ""]
    fade_logit: Float[Array, ""]
    head: HeadParams


class HebbianState(NamedTuple):
    """The matrix, and the context, a fading mean of keys."""

    W: Float[Array, "B d d"]
    context: Float[Array, "B d"]


@dataclass(frozen=True)
class HebbianMemory(MemoryDesign):
    """W <- W + a (v k^T - leak W), where a is the relevance of the tick; read W q.

    a = sigmoid(w z~ + bias + resonance cos(c, k)), and c <- c + fade (k - c) is the context: what goes with the
    context is written more. Nothing is subtracted for what W holds already, which is what the delta rule does besides.
    |W| stays below the longest value divided by the leak. After Synaptic Resonance, whose abstract leaves the formula
    open: this one is ours. 4,224 bytes; width=127 takes 65,024.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        width: d of keys, queries and values.
    """

    feature_size: int
    head: HeadConfig
    width: int = 32

    def __post_init__(self) -> None:
        check_sizes(self, width=1)

    def init_params(self, key: Array) -> HebbianParams:
        """Fresh parameters; it leaks little, and half writes everything."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return HebbianParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            relevance=jnp.zeros(D),
            relevance_bias=jnp.zeros(()),
            resonance=jnp.ones(()),
            leak_logit=jnp.full((), -4.0),
            fade_logit=jnp.full((), -2.0),
            head=init_head(second, self.head, D, self.width),
        )

    def init(self, batch: int) -> HebbianState:
        """The empty state: zeros."""
        return HebbianState(jnp.zeros((batch, self.width, self.width)), jnp.zeros((batch, self.width)))

    def step(
        self, params: HebbianParams, state: HebbianState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[HebbianState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)
        likeness = jnp.sum(unit(before.context) * k, axis=-1)
        a = jax.nn.sigmoid(zn @ params.relevance + params.relevance_bias + params.resonance * likeness)
        leak, fade = jax.nn.sigmoid(params.leak_logit), jax.nn.sigmoid(params.fade_logit)
        W = before.W + a[:, None, None] * (v[:, :, None] * k[:, None, :] - leak * before.W)
        context = before.context + fade * (k - before.context)
        after = unless_refused(HebbianState(W, context), before, trusted)
        return after, ungated_step_out(params.head, self.head, zn, read_matrix(after.W, q), trusted)
