"""Pairs of key and value: what the designs here that store them share.

Shapes: B rows, D feature size, M entries, d size of keys, queries and values.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float

from vlamem.memory.protocol import State, reset_rows


class Pairs(NamedTuple):
    """Projections of the standardised feature; `sharpness` scales the cosine by which entries are read."""

    k: Float[Array, "D d"]
    q: Float[Array, "D d"]
    v: Float[Array, "D d"]
    sharpness: Float[Array, ""]


def init_pairs(key: Array, feature_size: int, width: int) -> Pairs:
    """Fresh projections; queries start near keys, so that what was written can be asked for at once."""
    keys, init, shape = jax.random.split(key, 3), initializers.lecun_normal(), (feature_size, width)
    k = init(keys[0], shape, jnp.float32)
    q = k + 0.1 * init(keys[1], shape, jnp.float32)
    return Pairs(k, q, init(keys[2], shape, jnp.float32), jnp.full((), 8.0))


def unit(x: Float[Array, "... n"]) -> Float[Array, "... n"]:
    """x / |x|, and 0 for 0."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def project(
    params: Pairs, zn: Float[Array, "B D"]
) -> tuple[Float[Array, "B d"], Float[Array, "B d"], Float[Array, "B d"]]:
    """Key and query of length 1, and value."""
    return unit(zn @ params.k), unit(zn @ params.q), zn @ params.v


def attention(score: Float[Array, "B M"], filled: Bool[Array, "B M"]) -> Float[Array, "B M"]:
    """Softmax of `score` over the filled entries; all zeros in a row that has none."""
    return jax.nn.softmax(jnp.where(filled, score, -1e9), axis=-1) * filled


def delta_write(
    S: Float[Array, "B d d"],
    k: Float[Array, "B d"],
    v: Float[Array, "B d"],
    rate: Float[Array, "B"],
    keep: Float[Array, "B"],
) -> Float[Array, "B d d"]:
    """keep S + rate (v - keep S k) k^T, the gated delta rule (Yang et al. 2024): what S recalls for k moves to v."""
    S = keep[:, None, None] * S
    return S + rate[:, None, None] * (v - read_matrix(S, k))[:, :, None] * k[:, None, :]


def read_matrix(S: Float[Array, "B d d"], q: Float[Array, "B d"]) -> Float[Array, "B d"]:
    """S q."""
    return jnp.einsum("bij,bj->bi", S, q)


def unless_refused(after: State, before: State, trusted: Bool[Array, "B"]) -> State:
    """`after`, and `before` to the bit in rows whose feature is not trusted."""
    return reset_rows(after, before, ~trusted)


def check_sizes(design: Any, **least: int) -> None:
    """Raises ValueError for an option of a design that is below the least value given for it."""
    for name, value in least.items():
        if getattr(design, name) < value:
            raise ValueError(f"{name} of {type(design).__name__} is {getattr(design, name)}: expected {value} or more")
