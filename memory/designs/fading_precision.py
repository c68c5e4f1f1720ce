"""One small latent a tick, stored in fewer bits as it grows older. Shapes: B rows, D feature size, r latent size."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float, Int, Int8, UInt8

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.base import MemoryDesign
from vlamem.memory.designs.pairs import attention, check_sizes, unless_refused
from vlamem.memory.head import HeadParams, init_head, ungated_step_out
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size, reset_rows, standardise

LEVELS_8, LEVELS_4 = 127, 7
"""Steps on either side of 0 in eight and in four bits."""


class FadingPrecisionParams(NamedTuple):
    """`latent` makes a tick's latent; `k` and `v` make key and value of it when it is read; older ones count less."""

    mean: Float[Array, "D"]
    scale: Float[Array, "D"]
    latent: Float[Array, "D r"]
    q: Float[Array, "D d"]
    k: Float[Array, "r d"]
    v: Float[Array, "r d"]
    slope: Float[Array, ""]
    head: HeadParams


class FadingPrecisionState(NamedTuple):
    """Latents, latest first, in 32 bits, then 8, then 4 (two to a byte), and how many ticks there were, at most all."""

    fine: Float[Array, "B n_32 r"]
    coarse: Int8[Array, "B n_8 r"]
    coarsest: UInt8[Array, "B n_4 half_r"]
    ticks: Int[Array, "B"]


@dataclass(frozen=True)
class FadingPrecisionMemory(MemoryDesign):
    """A window in which the latest ticks have 32 bits a number, older ones 8, the oldest 4; attention reads them all.

    A tick is one latent c = tanh(latent^T z~) of `rank` numbers in (-1, 1), from which key and value are made when it
    is read, so that neither is stored; 304 ticks take the bytes in which `kv_window` holds 16. No gradient goes through
    rounding: what a latent holds is learned from reads while it is among the `fine` ones, how latents are read from
    all. Low-rank latents as in PLM (multi-head latent attention), precision that falls with age as in SuperLocalMemory
    V3.3, here by age alone and not by use. 4,100 bytes; fine=255&coarse=1536&coarsest=3072 takes 65,476.

    Attributes:
        feature_size: D.
        head: what is proposed from the read-out.
        rank: r, numbers in a latent, even.
        width: d of queries, and of keys and values as they are made.
        fine: latest ticks that are kept in 32 bits.
        coarse: ticks before them in 8 bits.
        coarsest: ticks before those in 4 bits.
    """

    feature_size: int
    head: HeadConfig
    rank: int = 16
    width: int = 32
    fine: int = 16
    coarse: int = 96
    coarsest: int = 192

    def __post_init__(self) -> None:
        check_sizes(self, rank=2, width=1, fine=1, coarse=1, coarsest=1)
        if self.rank % 2:
            raise ValueError(f"rank of FadingPrecisionMemory is {self.rank}: expected an even number, two go in a byte")

    def init_params(self, key: Array) -> FadingPrecisionParams:
        """Fresh parameters."""
        keys, init, D = jax.random.split(key, 5), initializers.lecun_normal(), self.feature_size
        return FadingPrecisionParams(
            mean=jnp.zeros(D),
            scale=jnp.ones(D),
            latent=init(keys[0], (D, self.rank), jnp.float32),
            q=init(keys[1], (D, self.width), jnp.float32),
            k=init(keys[2], (self.rank, self.width), jnp.float32),
            v=init(keys[3], (self.rank, self.width), jnp.float32),
            slope=jnp.zeros(()),
            head=init_head(keys[4], self.head, D, self.width),
        )

    def init(self, batch: int) -> FadingPrecisionState:
        """No tick."""
        r = self.rank
        return FadingPrecisionState(
            jnp.zeros((batch, self.fine, r)),
            jnp.zeros((batch, self.coarse, r), jnp.int8),
            jnp.zeros((batch, self.coarsest, r // 2), jnp.uint8),
            jnp.zeros(batch, jnp.int32),
        )

    def step(
        self,
        params: FadingPrecisionParams,
        state: FadingPrecisionState,
        z: Feature,
        reset: Rows,
        event: Rows | None = None,
    ) -> tuple[FadingPrecisionState, StepOut]:
        """One control tick. Raises ValueError for a feature of another size."""
        check_feature_size(z.shape[-1], self.feature_size)
        zn, trusted = standardise(z, params.mean, params.scale)
        before = reset_rows(state, self.init(z.shape[0]), reset)
        total = self.fine + self.coarse + self.coarsest
        after = FadingPrecisionState(
            _pushed(before.fine, jnp.tanh(zn @ params.latent)),
            _pushed(before.coarse, jnp.round(LEVELS_8 * before.fine[:, -1]).astype(jnp.int8)),
            _pushed(before.coarsest, packed(before.coarse[:, -1] / LEVELS_8)),
            jnp.minimum(before.ticks + 1, total),
        )
        after = unless_refused(after, before, trusted)

        latents = jnp.concatenate([after.fine, after.coarse / LEVELS_8, unpacked(after.coarsest)], axis=1)
        age = jnp.arange(total)
        # the query is taken into the latents' space and the weighted latent out of it: no key or value is made
        asked = (zn @ params.q) @ params.k.T
        score = jnp.einsum("bmr,br->bm", latents, asked) - jax.nn.softplus(params.slope) * age / total
        weight = attention(score, age < after.ticks[:, None])
        r = jnp.einsum("bm,bmr->br", weight, latents) @ params.v
        return after, ungated_step_out(params.head, self.head, zn, r, trusted)


def packed(x: Float[Array, "B r"]) -> UInt8[Array, "B half_r"]:
    """Numbers in [-1, 1] to the nearest of 15 levels, two in a byte."""
    level = (jnp.round(LEVELS_4 * x) + LEVELS_4).astype(jnp.uint8)
    return level[:, ::2] * 16 + level[:, 1::2]


def unpacked(x: UInt8[Array, "B n half_r"]) -> Float[Array, "B n r"]:
    """The numbers that `packed` put in bytes."""
    both = jnp.stack([x // 16, x % 16], axis=-1).reshape(*x.shape[:2], -1)
    return (both.astype(jnp.float32) - LEVELS_4) / LEVELS_4


def _pushed(kept: Array, newest: Array) -> Array:
    """The latest ones with `newest` before them, the oldest dropped."""
    return jnp.concatenate([newest[:, None], kept[:, :-1]], axis=1)
