"""Slots that compete for each tick, and a matrix into which they are consolidated.

Shapes: B rows, D feature size, N slots, d size of keys and values.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import Pairs, check_sizes, init_pairs, project, read_matrix, unless_refused
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class CompetitiveSlotsParams(NamedTuple):
    """Projections, an address of each slot, and how much of a tick is written and of what it displaces is kept."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    address: Float[Array, "N d"]
    write: Float[Array, "D"]
    write_bias: Float[Array, ""]
    consolidate_logit: Float[Array, ""]
    head: HeadParams


class CompetitiveSlotsState(NamedTuple):
    """Keys and values of the slots, and the long-term matrix."""

    keys: Float[Array, "B N d"]
    values: Float[Array, "B N d"]
    long_term: Float[Array, "B d d"]


@dataclass(frozen=True)
class CompetitiveSlotsMemory(MemoryDesign):
    """The slots whose address and key suit a tick best share it; what they held goes into a matrix as outer products.

    The `winners` best of N slots divide a write by the softmax of their scores, and each moves its key and value
    towards the tick by its share. What it held is first written, by the same share, into the long-term matrix, by the
    delta rule, so that what the matrix has already is not added again. The read-out is [softmax over slots, matrix
    times query]; an empty slot is one of zeros. After PMI (working memory with competitive write access, merged with
    long-term memory by outer products). 4,224 bytes; width=96&slots=37 takes 65,280.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        slots: N.
        width: d of keys, queries and values.
        winners: slots that are written at a tick, 1 to N.
    """

    feature_size: int
    head: HeadConfig
    slots: int = 10
    width: int = 24
    winners: int = 2

    def __post_init__(self) -> None:
        check_sizes(self, slots=1, width=1, winners=1)
        if self.winners > self.slots:
            raise ValueError(f"winners of CompetitiveSlotsMemory is {self.winners}: expected {self.slots} at most")

    def init_params(self, key: Array) -> CompetitiveSlotsParams:
        """Fresh parameters; addresses are drawn, or all slots would hold the same for ever."""
        first, second, third = jax.random.split(key, 3)
        D = self.feature_size
        return CompetitiveSlotsParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            address=initializers.lecun_normal()(third, (self.slots, self.width), jnp.float32),
            write=jnp.zeros(D),
            write_bias=jnp.zeros(()),
            consolidate_logit=jnp.zeros(()),
            head=init_head(second, self.head, D, 2 * self.width),
        )

    def init(self, batch: int) -> CompetitiveSlotsState:
        """The empty state: zeros."""
        d = self.width
        slots = jnp.zeros((batch, self.slots, d))
        return CompetitiveSlotsState(slots, slots, jnp.zeros((batch, d, d)))

    def step(
        self,
        params: CompetitiveSlotsParams,
        state: CompetitiveSlotsState,
        z: Feature,
        reset: Rows,
        event: Rows | None = None,
    ) -> tuple[CompetitiveSlotsState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)

        score = params.pairs.sharpness * jnp.einsum("bnd,bd->bn", before.keys + params.address, k)
        least = jax.lax.top_k(score, self.winners)[0][:, -1:]
        share = jax.nn.softmax(jnp.where(score >= least, score, -1e9), axis=-1)
        share = share * jax.nn.sigmoid(zn @ params.write + params.write_bias)[:, None]
        missing = before.values - jnp.einsum("bij,bnj->bni", before.long_term, before.keys)
        displaced = jnp.einsum("bn,bni,bnj->bij", share, missing, before.keys)
        after = CompetitiveSlotsState(
            before.keys + share[..., None] * (k[:, None] - before.keys),
            before.values + share[..., None] * (v[:, None] - before.values),
            before.long_term + jax.nn.sigmoid(params.consolidate_logit) * displaced,
        )
        after = unless_refused(after, before, trusted)

        weight = jax.nn.softmax(params.pairs.sharpness * jnp.einsum("bnd,bd->bn", after.keys, q), axis=-1)
        working = jnp.einsum("bn,bnd->bd", weight, after.values)
        r = jnp.concatenate([working, read_matrix(after.long_term, q)], axis=-1)
        return after, ungated_step_out(params.head, self.head, zn, r, trusted)
