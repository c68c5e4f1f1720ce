"""A bank whose entries have a learned retention that decays with age; the lowest makes room.

Shapes: B rows, D feature size, M entries, d size of keys and values.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import Pairs, attention, check_sizes, init_pairs, project, unless_refused
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise

EMPTY = -1
"""Age of an entry that is not filled."""


class RetentionParams(NamedTuple):
    """Projections; `retain` weighs the feature for the retention of a tick."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    retain: Float[Array, "D"]
    retain_bias: Float[Array, ""]
    head: HeadParams


class RetentionState(NamedTuple):
    """Key, value and logarithm of the retention of each entry, and its age in ticks, EMPTY where there is none."""

    keys: Float[Array, "B M d"]
    values: Float[Array, "B M d"]
    log_retention: Float[Array, "B M"]
    age: Int[Array, "B M"]


@dataclass(frozen=True)
class RetentionMemory(MemoryDesign):
    """Each tick is stored with a retention b in (0, 1), made of its feature; where M are full, the least b^age goes.

    An entry's weight in the attention is multiplied by b^age, which is how b is learned: the eviction itself has no
    gradient. In `train-gate`, `capacity` times the mean of b^age over the bank is added to the loss, so that what no
    answer needs is let go. At equal retentions the oldest entry goes, as in a window. After TRIM-KV. 4,224 bytes;
    entries=248 takes 65,472.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        entries: M.
        width: d of keys, queries and values.
        capacity: weight of the mean of b^age in the loss, 0 or more.
    """

    feature_size: int
    head: HeadConfig
    entries: int = 16
    width: int = 32
    capacity: float = 0.01

    def __post_init__(self) -> None:
        check_sizes(self, entries=1, width=1, capacity=0)

    def init_params(self, key: Array) -> RetentionParams:
        """Fresh parameters; retentions are equal and close to 1."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return RetentionParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            retain=jnp.zeros(D),
            retain_bias=jnp.full((), 5.0),
            head=init_head(second, self.head, D, self.width),
        )

    def init(self, batch: int) -> RetentionState:
        """No entry."""
        wide, flat = jnp.zeros((batch, self.entries, self.width)), jnp.zeros((batch, self.entries))
        return RetentionState(wide, wide, flat, jnp.full((batch, self.entries), EMPTY, jnp.int32))

    def step(
        self, params: RetentionParams, state: RetentionState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[RetentionState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)
        log_b = jax.nn.log_sigmoid(zn @ params.retain + params.retain_bias)

        age = jnp.where(before.age == EMPTY, EMPTY, before.age + 1)
        left = jnp.where(age == EMPTY, -jnp.inf, before.log_retention * age)
        put = jax.nn.one_hot(jnp.argmin(left, axis=-1), self.entries, dtype=bool)
        after = RetentionState(
            jnp.where(put[..., None], k[:, None], before.keys),
            jnp.where(put[..., None], v[:, None], before.values),
            jnp.where(put, log_b[:, None], before.log_retention),
            jnp.where(put, 0, age),
        )
        after = unless_refused(after, before, trusted)

        filled, decay = after.age != EMPTY, after.log_retention * after.age
        cosine = jnp.einsum("bmd,bd->bm", after.keys, q)
        weight = attention(params.pairs.sharpness * cosine + decay, filled)
        r = jnp.einsum("bm,bmd->bd", weight, after.values)
        occupied = jnp.mean(jnp.exp(decay) * filled, axis=-1)
        out = ungated_step_out(params.head, self.head, zn, r, trusted)
        return after, out._replace(gate_loss=self.capacity * occupied)
