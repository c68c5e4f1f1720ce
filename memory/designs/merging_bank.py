"""A bank in order of time that merges its two most similar neighbours when it is full.

Shapes: B rows, D feature size, M entries, d size of keys and values.
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


class MergingBankParams(NamedTuple):
    """Projections; `slope` makes older entries count less, by what its softplus says over the whole bank."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    slope: Float[Array, ""]
    head: HeadParams


class MergingBankState(NamedTuple):
    """Mean key and value of each entry, oldest first, and of how many ticks: 0 where it is empty."""

    keys: Float[Array, "B M d"]
    values: Float[Array, "B M d"]
    ticks: Float[Array, "B M"]


@dataclass(frozen=True)
class MergingBankMemory(MemoryDesign):
    """Every tick is an entry at the end of the bank; where none is free, two neighbours in time become one.

    They are the two with the highest cosine of their keys; the merged entry is the mean over all ticks that it stands
    for, so that a long time in which nothing changes takes one entry. Entries are read by attention, older ones less.
    After the memory bank of MemoryVLA, which averages the pair and not its ticks. 4,160 bytes; entries=252 takes
    65,520.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        entries: M, 2 or more.
        width: d of keys, queries and values.
    """

    feature_size: int
    head: HeadConfig
    entries: int = 16
    width: int = 32

    def __post_init__(self) -> None:
        check_sizes(self, entries=2, width=1)

    def init_params(self, key: Array) -> MergingBankParams:
        """Fresh parameters."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return MergingBankParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            slope=jnp.zeros(()),
            head=init_head(second, self.head, D, self.width),
        )

    def init(self, batch: int) -> MergingBankState:
        """No entry."""
        wide = jnp.zeros((batch, self.entries, self.width))
        return MergingBankState(wide, wide, jnp.zeros((batch, self.entries)))

    def step(
        self, params: MergingBankParams, state: MergingBankState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[MergingBankState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)
        longer = MergingBankState(
            jnp.concatenate([before.keys, k[:, None]], axis=1),
            jnp.concatenate([before.values, v[:, None]], axis=1),
            jnp.concatenate([before.ticks, jnp.ones_like(before.ticks[:, :1])], axis=1),
        )
        after = unless_refused(_shortened(longer), before, trusted)

        age = jnp.arange(self.entries)[::-1] / self.entries
        score = params.pairs.sharpness * jnp.einsum("bmd,bd->bm", unit(after.keys), q)
        weight = attention(score - jax.nn.softplus(params.slope) * age, after.ticks > 0)
        r = jnp.einsum("bm,bmd->bd", weight, after.values)
        return after, ungated_step_out(params.head, self.head, zn, r, trusted)


def _shortened(longer: MergingBankState) -> MergingBankState:
    """M + 1 entries as M: without the empty first one, or with the most similar neighbours merged."""
    keys, M = unit(longer.keys), longer.ticks.shape[1] - 1
    alike = jnp.sum(keys[:, :-1] * keys[:, 1:], axis=-1)
    full = longer.ticks[:, 0] > 0
    # entry i of M comes from i where that lies before the pair, else from i + 1
    pair = jnp.where(full, jnp.argmax(alike, axis=-1), -1)[:, None]
    merged = jnp.arange(M) == pair
    source = jnp.arange(M) + (jnp.arange(M) >= jnp.maximum(pair, 0))

    first, second = longer.ticks[:, :-1], longer.ticks[:, 1:]
    share = second / jnp.maximum(first + second, 1.0)
    keys, values = (
        _where(merged, x[:, :-1] + share[..., None] * (x[:, 1:] - x[:, :-1]), _take(x, source))
        for x in (longer.keys, longer.values)
    )
    return MergingBankState(keys, values, jnp.where(merged, first + second, _take(longer.ticks, source)))


def _take(x: Float[Array, "B N ..."], source: Array) -> Float[Array, "B M ..."]:
    return jnp.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), axis=1)


def _where(at: Bool[Array, "B M"], x: Float[Array, "B M d"], y: Float[Array, "B M d"]) -> Float[Array, "B M d"]:
    return jnp.where(at[..., None], x, y)
