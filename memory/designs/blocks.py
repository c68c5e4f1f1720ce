"""The latest ticks in blocks, of which the few are read whose representative key suits the query.

Shapes: B rows, D feature size, N blocks of L ticks, d size of keys and values.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import Pairs, attention, check_sizes, init_pairs, project, unit, unless_refused
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class BlocksParams(NamedTuple):
    """Projections."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    head: HeadParams


class BlocksState(NamedTuple):
    """Key and value of each tick, by block, oldest block and tick first, and whether the place is filled."""

    keys: Float[Array, "B N L d"]
    values: Float[Array, "B N L d"]
    filled: Bool[Array, "B N L"]


@dataclass(frozen=True)
class BlocksMemory(MemoryDesign):
    """Ticks fill blocks of L; attention sees the block under way and the `looked_up` blocks that suit the query best.

    A block is represented by the mean of its keys, made when it is looked up: it takes no bytes. The oldest of N + 1
    blocks is forgotten as a whole. After InfLLM, which has several representative keys a block. 4,128 bytes;
    blocks=126 takes 65,016.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        blocks: N, 2 or more.
        length: L.
        looked_up: blocks that are read beside the one under way, 1 to N - 1.
        width: d of keys, queries and values.
    """

    feature_size: int
    head: HeadConfig
    blocks: int = 8
    length: int = 4
    looked_up: int = 2
    width: int = 16

    def __post_init__(self) -> None:
        check_sizes(self, blocks=2, length=1, looked_up=1, width=1)
        if self.looked_up >= self.blocks:
            raise ValueError(f"looked_up of BlocksMemory is {self.looked_up}: expected {self.blocks - 1} at most")

    def init_params(self, key: Array) -> BlocksParams:
        """Fresh parameters."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return BlocksParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            head=init_head(second, self.head, D, self.width),
        )

    def init(self, batch: int) -> BlocksState:
        """No tick."""
        flat = (batch, self.blocks, self.length)
        return BlocksState(jnp.zeros((*flat, self.width)), jnp.zeros((*flat, self.width)), jnp.zeros(flat, bool))

    def step(
        self, params: BlocksParams, state: BlocksState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[BlocksState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)

        moved = jax.tree.map(lambda x: jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1), before)
        moved = reset_rows(before, moved, before.filled[:, -1, -1])
        # the first free place of the block under way
        put = jax.nn.one_hot(jnp.argmin(moved.filled[:, -1], axis=-1), self.length, dtype=bool)
        after = BlocksState(
            moved.keys.at[:, -1].set(jnp.where(put[..., None], k[:, None], moved.keys[:, -1])),
            moved.values.at[:, -1].set(jnp.where(put[..., None], v[:, None], moved.values[:, -1])),
            moved.filled.at[:, -1].set(moved.filled[:, -1] | put),
        )
        after = unless_refused(after, before, trusted)

        seen = after.filled & self._chosen(after, q)[..., None]
        cosine = jnp.einsum("bnld,bd->bnl", after.keys, q)
        flat = (z.shape[0], self.blocks * self.length)
        weight = attention((params.pairs.sharpness * cosine).reshape(flat), seen.reshape(flat))
        r = jnp.einsum("bm,bmd->bd", weight, after.values.reshape(*flat, self.width))
        return after, ungated_step_out(params.head, self.head, zn, r, trusted)

    def _chosen(self, state: BlocksState, q: Float[Array, "B d"]) -> Bool[Array, "B N"]:
        """The block under way, and of the others those whose mean key is nearest to the query."""
        suits = jnp.einsum("bnd,bd->bn", unit(state.keys.sum(2)), q)
        suits = jnp.where(state.filled.any(-1), suits, -jnp.inf).at[:, -1].set(-jnp.inf)
        _, best = jax.lax.top_k(suits, self.looked_up)
        return jax.nn.one_hot(best, self.blocks, dtype=bool).any(1).at[:, -1].set(True)
