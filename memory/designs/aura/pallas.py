"""AURA-Mem's recurrence as one fused kernel: error, gate, conditional write and read, one program a row.

A tick without a write reads W once and stores nothing of it: W and b are aliased in place, and the only store to them
is under the gate. GPU through Triton; `interpret=True` runs the same kernel on a CPU for tests.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.step import Ahead, AuraParams, AuraState, Written, answer, look_ahead, rates
from vlamem.memory.protocol import Feature, Rows, StepOut, check_feature_size


def supports(config: AuraConfig) -> bool:
    """Whether the kernel can run this memory: a learned gate, and sizes that are powers of two."""
    sizes = (config.key_size, config.value_size, config.gate_hidden)
    return config.gate in ("learned", "counterfactual") and all(n & (n - 1) == 0 for n in sizes)


def _kernel(
    W_in: Any, b_in: Any, k_in: Any, q_in: Any, v_in: Any, ahead_in: Any, flags_in: Any, Wvr_in: Any, gate_s: Any,
    gate_r: Any, gate_out: Any, scalars: Any, W_out: Any, b_out: Any, r_out: Any, scores_out: Any,
) -> None:  # fmt: skip
    trusted, reset = flags_in[0, 0], flags_in[0, 1]
    gate_bias, beta, gamma, bound = scalars[0], scalars[1], scalars[2], scalars[3]
    k, q = k_in[0, :], q_in[0, :]
    W, b = jnp.where(reset > 0.0, 0.0, W_in[0, :, :]), jnp.where(reset > 0.0, 0.0, b_in[0, :])

    prediction = jnp.sum(W * k[None, :], axis=1) + b
    r_prev = jnp.sum(W * q[None, :], axis=1) + b
    e = v_in[0, :] + jnp.sum(r_prev[:, None] * Wvr_in[:, :], axis=0) - prediction
    s = jnp.log1p(jnp.sum(e * e))
    hidden = ahead_in[0, :] + s * gate_s[:] + jnp.sum(r_prev[:, None] * gate_r[:, :], axis=0)
    logit = jnp.sum(jnp.maximum(hidden, 0.0) * gate_out[:]) + gate_bias
    g = jnp.where(logit > 0.0, trusted, 0.0)

    def store() -> None:
        W_out[0, :, :] = fits * new
        b_out[0, :] = fits * (b + (g * gamma) * e)

    new = W + (g * beta) * e[:, None] * k[None, :]
    squared = jnp.sum(jnp.sum(new * new, axis=1))
    fits = jnp.where(g > 0.0, jnp.minimum(1.0, bound * jax.lax.rsqrt(squared + 1e-12)), 1.0)
    pl.when(g + reset > 0.0)(store)
    r_out[0, :] = fits * (r_prev + g * (beta * jnp.sum(k * q) + gamma) * e)
    scores_out[0, 0], scores_out[0, 1] = s, logit


def recur(
    params: AuraParams, config: AuraConfig, state: AuraState, x: Ahead, reset: Rows, interpret: bool = False
) -> tuple[AuraState, Written]:
    """What `step.recur` gives, without gradients. Raises ValueError for a memory that `supports` refuses."""
    if not supports(config):
        raise ValueError(f"the fused kernel runs learned gates with sizes that are powers of two, not {config}")
    rows = state.W.shape[0]
    beta, gamma = rates(params)
    scalars = jnp.stack([params.gate["out_bias"], beta, gamma, jnp.asarray(config.bound or jnp.inf)])
    flags = jnp.stack([x.trusted, reset], axis=-1).astype(jnp.float32)
    sr = params.gate["sr"]
    shared = (params.Wvr, sr[0], sr[1:], params.gate["out"], scalars)
    by_row = (state.W, state.b, x.k, x.q, x.v, x.gate, flags)

    def row(a: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
        return pl.BlockSpec((1, *a.shape[1:]), lambda i: (i, *[0] * (len(a.shape) - 1)))

    def whole(a: Array) -> pl.BlockSpec:
        return pl.BlockSpec(a.shape, lambda i: (0,) * len(a.shape))

    out_shape = jax.eval_shape(lambda: (state.W, state.b, state.b, jnp.zeros((rows, 2))))
    W, b, r, scores = pl.pallas_call(
        _kernel,
        out_shape=out_shape,
        grid=(rows,),
        in_specs=[*map(row, by_row), *map(whole, shared)],
        out_specs=tuple(map(row, out_shape)),
        input_output_aliases={0: 0, 1: 1},
        interpret=interpret,
        name="aura_step",
    )(*by_row, *shared)
    s, logit = scores[:, 0], scores[:, 1]
    p = jnp.where(x.trusted, jax.nn.sigmoid(logit), 0.0)
    return AuraState(W, b, state.carry), Written(r, s, p, (logit > 0) & x.trusted, jnp.zeros(rows))


def step(
    params: AuraParams, state: AuraState, z: Feature, reset: Rows, *, config: AuraConfig, interpret: bool = False
) -> tuple[AuraState, StepOut]:
    """One control tick through the kernel; gives what `AuraMemory.step` gives."""
    check_feature_size(z.shape[-1], config.feature_size)
    x, for_head = look_ahead(params, config, z)
    state, written = recur(params, config, state, x, reset, interpret)
    return state, answer(params, config, for_head, x.trusted, written)
