"""Attention over the last ticks: FIFO and KV windows of 4,224 bytes, and the KV cache that grows with the horizon.

Shapes: B rows, T ticks, D feature size, M entries kept.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float, Int

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Features, Rows, StepOut, Ticks, check_feature_size, standardise


class AttentionParams(NamedTuple):
    """Projections; `v` is [D, 0] where key and value are one vector. `slope` makes older entries count less."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    k: Float[Array, "D d"]
    q: Float[Array, "D d"]
    v: Float[Array, "D d_v"]
    slope: Float[Array, ""]
    head: HeadParams


class AttentionState(NamedTuple):
    """The last M ticks, newest last: kept [B, M, d + d_v], and what of it is filled, [B, M] as 0 or 1 in a byte."""

    kept: Float[Array, "B M d_sum"]
    filled: Bool[Array, "B M"]


@dataclass(frozen=True)
class AttentionMemory(MemoryDesign):
    """Causal attention over the last `entries` ticks, this one included; what the caches below share.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        entries: M; the oldest of M + 1 is forgotten.
        width: size d of keys, queries and values.
        shared: keep one vector a tick that is key and value at once.
        first: entries that the first ticks after a reset keep for good, below M; the others are the latest ticks'.
    """

    feature_size: int
    head: HeadConfig
    entries: int = 16
    width: int = 32
    shared: bool = False
    first: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.entries:
            raise ValueError(
                f"first of {type(self).__name__} is {self.first}: expected 0 to {self.entries - 1}, below its entries"
            )

    def init_params(self, key: Array) -> AttentionParams:
        """Fresh parameters."""
        keys = jax.random.split(key, 4)
        init = initializers.lecun_normal()
        k = init(keys[0], (self.feature_size, self.width), jnp.float32)
        return AttentionParams(
            mean=jnp.zeros(self.feature_size),
            scale=jnp.ones(self.feature_size),
            k=k,
            q=k + 0.1 * init(keys[1], (self.feature_size, self.width), jnp.float32),
            v=init(keys[2], (self.feature_size, 0 if self.shared else self.width), jnp.float32),
            slope=jnp.full((), -3.0),
            head=init_head(keys[3], self.head, self.feature_size, self.width),
        )

    def init(self, batch: int) -> AttentionState:
        """No entry filled."""
        wide = self.width if self.shared else 2 * self.width
        return AttentionState(jnp.zeros((batch, self.entries, wide)), jnp.zeros((batch, self.entries), bool))

    def step(
        self, params: AttentionParams, state: AttentionState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[AttentionState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        state, out = self.scan(params, state, z[None], reset[None])
        return state, jax.tree.map(lambda x: x[0], out)

    def scan(
        self, params: AttentionParams, state: AttentionState, zs: Features, resets: Ticks, events: Ticks | None = None
    ) -> tuple[AttentionState, StepOut]:
        """T ticks at once: each attends to the trusted ticks since its row's reset that M entries hold."""
        check_feature_size(zs.shape[-1], self.feature_size)
        (T, B), M = resets.shape, self.entries
        zn, trusted = standardise(zs, params.mean, params.scale)
        fresh = jnp.swapaxes(jnp.concatenate([zn @ params.k, zn @ params.v], axis=-1), 0, 1)
        every = jnp.concatenate([state.kept, fresh], axis=1)
        filled = jnp.concatenate([state.filled, trusted.T], axis=1)
        # a refused tick takes no place: entries are counted, not ticks
        place = jnp.cumsum(filled, axis=1)
        life = jnp.concatenate([jnp.zeros((B, M), jnp.int32), jnp.cumsum(resets, axis=0).T], axis=1)
        age = place[:, M:, None] - place[:, None, :]
        for_good = self._rank(place, filled, life) <= self.first
        held = (age < M - self.first) | for_good[:, None, :]
        seen = filled[:, None, :] & (life[:, M:, None] == life[:, None, :]) & held
        seen &= jnp.arange(M + T) <= jnp.arange(M, M + T)[:, None]
        # what is kept for good has no age: ticks between it and the window are not counted any more
        age = jnp.where(for_good[:, None, :], 0, age)

        queries = jnp.swapaxes(zn @ params.q, 0, 1)
        score = jnp.einsum("btd,bsd->bts", queries, every[..., : self.width]) * self.width**-0.5
        score = jnp.where(seen, score - jax.nn.softplus(params.slope) * age, -1e9)
        weight = jax.nn.softmax(score, axis=-1) * seen
        r = jnp.einsum("bts,bsd->tbd", weight, every[..., -self.width :])

        # stable sort: what is held of this life last, in its order
        alive = filled & (life == life[:, -1:]) & ((place[:, -1:] - place < M - self.first) | for_good)
        order = jnp.argsort(alive.astype(jnp.int32), axis=1, stable=True)[:, -M:]
        alive = jnp.take_along_axis(alive, order, axis=1)
        kept = jnp.take_along_axis(every, order[..., None], axis=1) * alive[..., None]
        return AttentionState(kept, alive), ungated_step_out(params.head, self.head, zn, r, trusted)

    def _rank(self, place: Ticks, filled: Ticks, life: Ticks) -> Int[Array, "B N"]:
        """Which filled entry of its life each one is, from 1, given running counts of filled ones and of resets."""
        begins = life != jnp.concatenate([life[:, :1], life[:, :-1]], axis=1)
        rank: Int[Array, "B N"] = place - jax.lax.cummax(jnp.where(begins, place - filled, 0), axis=1)
        return rank


@dataclass(frozen=True)
class FifoMemory(AttentionMemory):
    """The latest 32 ticks, one vector of 32 floats each: 4,128 bytes, the most whole entries that 4,224 hold."""

    entries: int = 32
    shared: bool = True


@dataclass(frozen=True)
class KvWindowMemory(AttentionMemory):
    """The latest 16 ticks, key and value of 32 floats each: 4,112 bytes, the most whole entries that 4,224 hold."""


@dataclass(frozen=True)
class FirstAndWindowMemory(AttentionMemory):
    """The first 4 ticks since the reset and the latest 12, 4,112 bytes; entries=254&first=32 takes 65,278.

    After JanusVLN, which keeps keys and values of the initial and the sliding window alone, for geometry and meaning
    apart; a frozen policy gives one feature. How much of a delay it bridges depends on whether the cue comes first.
    """

    first: int = 4


@dataclass(frozen=True)
class KvGrowingMemory(AttentionMemory):
    """A key-value cache with room for a horizon of `entries` ticks, 257 bytes each; its size grows with the horizon."""

    entries: int = 1024
