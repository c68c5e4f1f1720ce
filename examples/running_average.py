"""A memory design of one's own: a leaky average of the feature, projected and read by the usual head.

    PYTHONPATH=. vlamem train-gate --design 'examples.running_average:RunningAverage?keep=0.95' --out runs/average

trains it on data/features. One line gives it a name:

    vlamem.memory.designs.register("running_average", "examples.running_average:RunningAverage")
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Params, Rows, StepOut, check_feature_size, reset_rows, standardise


class AverageParams(NamedTuple):
    """What training expects of every design (mean, scale, head), and a flax module's parameters."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    project: Params
    head: HeadParams


@dataclass(frozen=True)
class RunningAverage(MemoryDesign):
    """h <- keep h + (1 - keep) tanh(project z~) at every trusted tick; the state is h [B, width]."""

    feature_size: int
    head: HeadConfig
    width: int = 64
    keep: float = 0.9

    def init_params(self, key: Array) -> AverageParams:
        """Fresh parameters."""
        first, second = jax.random.split(key)
        D = self.feature_size
        project = linen.Dense(self.width).init(first, jnp.zeros(D))
        return AverageParams(jnp.zeros(D), jnp.ones(D), project, init_head(second, self.head, D, self.width))

    def init(self, batch: int) -> Float[Array, "B width"]:
        """h = 0."""
        return jnp.zeros((batch, self.width))

    def step(
        self, params: AverageParams, state: Float[Array, "B width"], z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[Float[Array, "B width"], StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        h = reset_rows(state, jnp.zeros_like(state), reset)
        seen = jnp.tanh(linen.Dense(self.width).apply(params.project, zn))
        h = jnp.where(trusted[:, None], self.keep * h + (1 - self.keep) * seen, h)
        return h, ungated_step_out(params.head, self.head, zn, h, trusted)
