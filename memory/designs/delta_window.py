"""A matrix under the gated delta rule, and the latest ticks exactly. Shapes: B rows, D feature size, w window."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import (
    Pairs,
    attention,
    check_sizes,
    delta_write,
    init_pairs,
    project,
    read_matrix,
    unless_refused,
)
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise


class DeltaWindowParams(NamedTuple):
    """Projections; `gates` weigh the feature for the rate of its later write and for what S keeps at it."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    gates: Float[Array, "D 2"]
    gates_bias: Float[Array, "2"]
    head: HeadParams


class DeltaWindowState(NamedTuple):
    """S, and the window, oldest first: key, value, rate and keep of each tick, and whether it is filled."""

    S: Float[Array, "B d d"]
    window: Float[Array, "B w two_d_and_2"]
    filled: Bool[Array, "B w"]


@dataclass(frozen=True)
class DeltaWindowMemory(MemoryDesign):
    """The latest `window` ticks are attended to exactly; a tick that leaves the window is written into S.

    S <- keep S + rate (v - keep S k) k^T, and the read-out is [S q, attention over the window]. The two parts of
    InfiniteVL (sliding-window attention and Gated DeltaNet), in one layer and without holding a tick twice.
    4,113 bytes; width=96&window=35 takes 64,059.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        width: d of keys, queries and values.
        window: ticks that are kept exactly, 1 or more.
    """

    feature_size: int
    head: HeadConfig
    width: int = 24
    window: int = 9

    def __post_init__(self) -> None:
        check_sizes(self, width=1, window=1)

    def init_params(self, key: Array) -> DeltaWindowParams:
        """Fresh parameters; S keeps nearly everything at first."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return DeltaWindowParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            gates=jnp.zeros((D, 2)),
            gates_bias=jnp.array([0.0, 6.0]),
            head=init_head(second, self.head, D, 2 * self.width),
        )

    def init(self, batch: int) -> DeltaWindowState:
        """S = 0, nothing in the window."""
        d, w = self.width, self.window
        return DeltaWindowState(jnp.zeros((batch, d, d)), jnp.zeros((batch, w, 2 * d + 2)), jnp.zeros((batch, w), bool))

    def step(
        self, params: DeltaWindowParams, state: DeltaWindowState, z: Feature, reset: Rows, event: Rows | None = None
    ) -> tuple[DeltaWindowState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        d = self.width
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)
        gates = jax.nn.sigmoid(zn @ params.gates + params.gates_bias)

        leaving, left = before.window[:, 0], before.filled[:, 0]
        S = delta_write(before.S, leaving[:, :d], leaving[:, d : 2 * d], leaving[:, -2], leaving[:, -1])
        S = reset_rows(S, before.S, ~left)
        fresh = jnp.concatenate([k, v, gates], axis=-1)[:, None]
        window = jnp.concatenate([before.window[:, 1:], fresh], axis=1)
        filled = jnp.concatenate([before.filled[:, 1:], jnp.ones_like(left)[:, None]], axis=1)
        after = unless_refused(DeltaWindowState(S, window, filled), before, trusted)

        cosine = jnp.einsum("bmd,bd->bm", after.window[..., :d], q)
        weight = attention(params.pairs.sharpness * cosine, after.filled)
        exact = jnp.einsum("bm,bmd->bd", weight, after.window[..., d : 2 * d])
        r = jnp.concatenate([read_matrix(after.S, q), exact], axis=-1)
        return after, ungated_step_out(params.head, self.head, zn, r, trusted)
