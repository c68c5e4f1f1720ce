"""T ticks of AURA-Mem in chunks that touch W once a chunk, for training and for replaying recorded features.

Within a chunk the state before tick t is W = W_0 + beta sum_i g_i e_i k_i^T and b = b_0 + gamma sum_i g_i e_i over the
chunk's earlier ticks i, so that

    W k_t + b = W_0 k_t + b_0 + sum_i (beta k_i . k_t + gamma) g_i e_i

and likewise for q_t. W_0 k and W_0 q of all ticks of a chunk are one matrix product, W is written once a chunk, and
backward differentiation keeps one W a chunk where the tick-by-tick form keeps one a tick. Under a bound a chunk is run
tick by tick, and again when it is differentiated, so that then too one W a chunk is kept.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.step import Ahead, AuraParams, AuraState, Written, decide, rates, recur
from vlamem.memory.protocol import reset_rows

CHUNK = 8
"""Ticks a chunk; of 8, 16 and 32 the quickest forward and backward on a CPU."""

Ticks = tuple[Ahead, Bool[Array, "T B"], Bool[Array, "T B"] | None, Float[Array, "T B"] | None]
"""What each tick brings: what its feature gave ahead, reset, event mark, and a forced decision."""
Tick = tuple[Ahead, Bool[Array, "B"], Bool[Array, "B"] | None, Float[Array, "B"] | None]
"""One of them."""


def scan_chunks(params: AuraParams, config: AuraConfig, state: AuraState, ticks: Ticks) -> tuple[AuraState, Written]:
    """What T times `step.recur` gives; the answer has a leading T axis."""
    T = ticks[1].shape[0]
    whole = T - T % CHUNK

    def one(carry: AuraState, xs: Ticks) -> tuple[AuraState, Written]:
        if config.bound is None:
            return _chunk(params, config, carry, xs)
        return jax.lax.scan(lambda before, now: recur(params, config, before, *now), carry, xs)

    run = one if config.bound is None else jax.checkpoint(one)
    chunks = jax.tree.map(lambda x: x[:whole].reshape(whole // CHUNK, CHUNK, *x.shape[1:]), ticks)
    state, written = jax.lax.scan(run, state, chunks)
    written = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), written)
    if whole == T:
        return state, written
    state, rest = run(state, jax.tree.map(lambda x: x[whole:], ticks))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), written, rest)


def _chunk(params: AuraParams, config: AuraConfig, state: AuraState, ticks: Ticks) -> tuple[AuraState, Written]:
    x, reset, *_ = ticks
    beta, gamma = rates(params)
    C, B = reset.shape
    life = jnp.cumsum(reset, axis=0)  # 0 while the row has not been reset within the chunk
    old = life == 0
    before = jnp.tril(jnp.ones((C, C)), -1)[None] * (life.T[:, :, None] == life.T[:, None, :])
    # [B, C, C]: what tick i's write adds to the reads of tick t, per unit of g_i e_i
    on_k = before * (beta * jnp.einsum("tbj,ibj->bti", x.k, x.k) + gamma)
    on_q = before * (beta * jnp.einsum("tbj,ibj->bti", x.q, x.k) + gamma)
    reads = jnp.stack([on_k, on_q], axis=2).transpose(1, 0, 2, 3)  # [C, B, 2, C]
    start = jnp.einsum("bij,tbcj->tbci", state.W, jnp.stack([x.k, x.q], axis=2)) + state.b[:, None]
    start = jnp.where(old[..., None, None], start, 0.0)  # a state that is not finite has to go as well

    def tick(carry: tuple[Array, Array], at: tuple[Array, Array, Array, Tick]) -> tuple[tuple[Array, Array], Written]:
        ge, held = carry
        t, start_t, reads_t, (now, reset_t, event_t, force_t) = at
        both = start_t + jnp.einsum("bci,biv->bcv", reads_t, ge)
        held = reset_rows(held, 0.0, reset_t)
        d = decide(params, config, now, (both[:, 0], both[:, 1]), held, event_t, force_t)
        ge = jax.lax.dynamic_update_index_in_dim(ge, d.g[:, None] * d.e, t, 1)
        return (ge, d.carry), d.written

    empty = jnp.zeros((B, C, config.value_size))
    (ge, held), written = jax.lax.scan(tick, (empty, state.carry), (jnp.arange(C), start, reads, ticks))
    ge = ge * (life == life[-1]).T[..., None]
    W = jnp.where(old[-1][:, None, None], state.W, 0.0) + beta * jnp.einsum("biv,ibj->bvj", ge, x.k)
    b = jnp.where(old[-1][:, None], state.b, 0.0) + gamma * jnp.sum(ge, axis=1)
    return AuraState(W, b, held), written
