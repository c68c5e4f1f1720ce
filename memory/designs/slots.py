"""Sixteen slots, the least recently used of which is written anew.

Shapes: B rows, D feature size, M slots.
"""

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


class SlotsParams(NamedTuple):
    """Projections; `sharpness` scales the cosine by which slots are read."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    k: Float[Array, "D d"]
    q: Float[Array, "D d"]
    v: Float[Array, "D d"]
    sharpness: Float[Array, ""]
    head: HeadParams


class SlotsState(NamedTuple):
    """Keys and values [B, M, d], whether a slot is filled (0 or 1), and ticks since its use: 4,224 bytes at M = 16."""

    keys: Float[Array, "B M d"]
    values: Float[Array, "B M d"]
    filled: Float[Array, "B M"]
    idle: Float[Array, "B M"]


@dataclass(frozen=True)
class SlotsMemory(MemoryDesign):
    """Slots read by cosine; a tick is written to the slot with its key, else to the least recently used one.

    The slot that is read most, where its key matches, counts as used.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        slots: M.
        width: d of keys and values.
        match: cosine above which two keys are one.
    """

    feature_size: int
    head: HeadConfig
    slots: int = 16
    width: int = 32
    match: float = 0.9

    def init_params(self, key: Array) -> SlotsParams:
        """Fresh parameters."""
        keys = jax.random.split(key, 4)
        init = initializers.lecun_normal()
        k = init(keys[0], (self.feature_size, self.width), jnp.float32)
        return SlotsParams(
            mean=jnp.zeros(self.feature_size),
            scale=jnp.ones(self.feature_size),
            k=k,
            q=k + 0.1 * init(keys[1], (self.feature_size, self.width), jnp.float32),
            v=init(keys[2], (self.feature_size, self.width), jnp.float32),
            sharpness=jnp.full((), 8.0),
            head=init_head(keys[3], self.head, self.feature_size, self.width),
        )

    def init(self, batch: int) -> SlotsState:
        """No slot filled, none ever used."""
        wide, flat = jnp.zeros((batch, self.slots, self.width)), jnp.zeros((batch, self.slots))
        return SlotsState(wide, wide, flat, flat)

    def step(
        self, params: SlotsParams, state: SlotsState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[SlotsState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        keys, values, filled, idle = reset_rows(state, self.init(z.shape[0]), reset)
        k, q = unit(zn @ params.k), unit(zn @ params.q)

        alike = jnp.where(filled > 0, jnp.einsum("bmd,bd->bm", keys, k), -1.0)
        oldest = jnp.argmax(jnp.where(filled > 0, idle, jnp.inf), axis=-1)
        slot = jnp.where(alike.max(-1) > self.match, jnp.argmax(alike, axis=-1), oldest)
        put = jax.nn.one_hot(slot, self.slots) * trusted[:, None]
        keys = keys + put[..., None] * (k[:, None] - keys)
        values = values + put[..., None] * ((zn @ params.v)[:, None] - values)
        filled = jnp.maximum(filled, put)

        cosine = jnp.einsum("bmd,bd->bm", keys, q)
        weight = jax.nn.softmax(jnp.where(filled > 0, params.sharpness * cosine, -1e9), axis=-1) * filled
        r = jnp.einsum("bm,bmd->bd", weight, values)
        read = jax.nn.one_hot(jnp.argmax(weight, axis=-1), self.slots) * (cosine > self.match)
        used = jnp.maximum(put, read * trusted[:, None])
        idle = jnp.where(trusted[:, None], (idle + 1) * (1 - used), idle)
        return SlotsState(keys, values, filled, idle), ungated_step_out(params.head, self.head, zn, r, trusted)
