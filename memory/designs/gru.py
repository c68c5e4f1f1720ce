"""A gated recurrent unit: it writes at every tick. Shapes: B rows, D feature size, n entries of the state."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class GruParams(NamedTuple):
    """Gates stacked as reset, update, candidate; `mean` and `scale` standardise the feature."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    x: Float[Array, "D three_n"]
    h: Float[Array, "n three_n"]
    bias: Float[Array, "three_n"]
    head: HeadParams


@dataclass(frozen=True)
class GruMemory(MemoryDesign):
    """A gated recurrent unit (Cho et al. 2014); the state is h [B, hidden], 4 bytes an entry.

    Attributes:
        feature_size: D.
        head: what is proposed from h.
        hidden: entries of h; 1,056 of them are 4,224 bytes.
    """

    feature_size: int
    head: HeadConfig
    hidden: int = 1056

    def init_params(self, key: Array) -> GruParams:
        """Fresh parameters."""
        from_x, head, *from_h = jax.random.split(key, 5)
        square, orthogonal = (self.hidden, self.hidden), initializers.orthogonal()
        return GruParams(
            mean=jnp.zeros(self.feature_size),
            scale=jnp.ones(self.feature_size),
            x=initializers.lecun_normal()(from_x, (self.feature_size, 3 * self.hidden), jnp.float32),
            h=jnp.concatenate([orthogonal(k, square, jnp.float32) for k in from_h], axis=1),
            bias=jnp.zeros(3 * self.hidden),
            head=init_head(head, self.head, self.feature_size, self.hidden),
        )

    def init(self, batch: int) -> Float[Array, "B n"]:
        """h = 0."""
        return jnp.zeros((batch, self.hidden))

    def step(
        self, params: GruParams, state: Float[Array, "B n"], z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[Float[Array, "B n"], StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        h = reset_rows(state, jnp.zeros_like(state), reset)
        from_x, n = zn @ params.x + params.bias, self.hidden
        r, u = jnp.split(jax.nn.sigmoid(from_x[:, : 2 * n] + h @ params.h[:, : 2 * n]), 2, axis=-1)
        candidate = jnp.tanh(from_x[:, 2 * n :] + (r * h) @ params.h[:, 2 * n :])
        h = jnp.where(trusted[:, None], (1 - u) * h + u * candidate, h)
        return h, ungated_step_out(params.head, self.head, zn, h, trusted)
