"""A fading matrix, and a buffer of the ticks that it predicts worst. Shapes: B rows, D feature size, M entries."""

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


class WorstPredictedParams(NamedTuple):
    """Projections; `gates` weigh the feature for the rate of a write into S and for what S keeps."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    pairs: Pairs
    gates: Float[Array, "D 2"]
    gates_bias: Float[Array, "2"]
    head: HeadParams


class WorstPredictedState(NamedTuple):
    """The fading matrix S; keys and values of the buffer, the error of each, faded since, and whether it is filled."""

    S: Float[Array, "B d d"]
    keys: Float[Array, "B M d"]
    values: Float[Array, "B M d"]
    errors: Float[Array, "B M"]
    filled: Bool[Array, "B M"]


@dataclass(frozen=True)
class WorstPredictedMemory(MemoryDesign):
    """Every tick is written into S by the gated delta rule; those that S predicted worst are kept exactly besides.

    The error of a tick is log(1 + |v - S k|^2) before its write. It takes the place of the buffer's least error where
    that is less; errors fade by `renew` a tick, or the first ticks of an episode would stay for good. The read-out is
    [S q, attention over the buffer]. After B'MOJO (fading memory in state, eidetic memory of what the state predicts
    worst). 4,077 bytes; width=96&entries=36 takes 64,692.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        entries: M.
        width: d of keys, queries and values.
        renew: by which an error of the buffer is multiplied at every tick, above 0 and at most 1.
    """

    feature_size: int
    head: HeadConfig
    entries: int = 9
    width: int = 24
    renew: float = 0.995

    def __post_init__(self) -> None:
        check_sizes(self, entries=1, width=1)
        if not 0 < self.renew <= 1:
            raise ValueError(f"renew of WorstPredictedMemory is {self.renew}: expected more than 0 and at most 1")

    def init_params(self, key: Array) -> WorstPredictedParams:
        """Fresh parameters; S keeps nearly everything at first."""
        first, second = jax.random.split(key)
        D = self.feature_size
        return WorstPredictedParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            pairs=init_pairs(first, D, self.width),
            gates=jnp.zeros((D, 2)),
            gates_bias=jnp.array([0.0, 4.0]),
            head=init_head(second, self.head, D, 2 * self.width),
        )

    def init(self, batch: int) -> WorstPredictedState:
        """S = 0, nothing in the buffer."""
        d, M = self.width, self.entries
        wide = jnp.zeros((batch, M, d))
        return WorstPredictedState(
            jnp.zeros((batch, d, d)), wide, wide, jnp.zeros((batch, M)), jnp.zeros((batch, M), bool)
        )

    def step(
        self,
        params: WorstPredictedParams,
        state: WorstPredictedState,
        z: Feature,
        reset: Rows,
        event: Rows | None = None,
    ) -> tuple[WorstPredictedState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        k, q, v = project(params.pairs, zn)
        rate, keep = jnp.moveaxis(jax.nn.sigmoid(zn @ params.gates + params.gates_bias), -1, 0)

        # which ticks are kept is a choice, not a value: no gradient goes through the error
        missed = jax.lax.stop_gradient(v - read_matrix(before.S, k))
        error = jnp.log1p(jnp.sum(missed * missed, axis=-1))
        errors = self.renew * before.errors
        least = jnp.where(before.filled, errors, -1.0)
        put = jax.nn.one_hot(jnp.argmin(least, axis=-1), self.entries, dtype=bool)
        put &= (error > least.min(-1))[:, None]
        after = WorstPredictedState(
            delta_write(before.S, k, v, rate, keep),
            jnp.where(put[..., None], k[:, None], before.keys),
            jnp.where(put[..., None], v[:, None], before.values),
            jnp.where(put, error[:, None], errors),
            before.filled | put,
        )
        after = unless_refused(after, before, trusted)

        cosine = jnp.einsum("bmd,bd->bm", after.keys, q)
        weight = attention(params.pairs.sharpness * cosine, after.filled)
        exact = jnp.einsum("bm,bmd->bd", weight, after.values)
        r = jnp.concatenate([read_matrix(after.S, q), exact], axis=-1)
        out = ungated_step_out(params.head, self.head, zn, r, trusted)
        return after, out._replace(surprise=jnp.where(trusted, error, 0.0))
