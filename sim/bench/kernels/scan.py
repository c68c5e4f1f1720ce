"""Training scans: AURA's beside the equations as they stand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlamem.memory.designs.aura.step import AuraMemory, AuraParams, AuraState
from vlamem.memory.designs.pairs import unit
from vlamem.memory.protocol import scan, standardise
from vlamem.sim.bench.kernels.rows import FEATURES
from vlamem.sim.bench.kernels.timing import Timing, measure_in_turn


def naive_scan(params: AuraParams, state: AuraState, zs: jax.Array) -> Any:
    """The learned-gate recurrence as the equations stand: projections and head at every tick, W read three times."""

    def tick(carry: tuple[jax.Array, jax.Array], z: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        W, b = carry
        x, _ = standardise(z, params.mean, params.scale)
        k, q = unit(x @ params.Wk), unit(x @ params.Wq)
        r_prev = jnp.einsum("bij,bj->bi", W, q) + b
        e = x @ params.Wv + r_prev @ params.Wvr - (jnp.einsum("bij,bj->bi", W, k) + b)
        s = jnp.log1p(jnp.sum(e * e, axis=-1))
        hidden = x @ params.gate["z"] + params.gate["bias"]
        hidden = jax.nn.relu(hidden + jnp.concatenate([s[:, None], r_prev], axis=-1) @ params.gate["sr"])
        g = (hidden @ params.gate["out"] + params.gate["out_bias"] > 0)[:, None]
        W = W + (g * jax.nn.sigmoid(params.beta_logit) * e)[:, :, None] * k[:, None, :]
        b = b + g * jax.nn.sigmoid(params.gamma_logit) * e
        r = jnp.einsum("bij,bj->bi", W, q) + b
        head = params.head
        y = jax.nn.relu(x @ head.z + r @ head.r + head.bias) @ head.out + head.out_bias
        return (W, b), y

    return jax.lax.scan(tick, (state.W, state.b), zs)


def scan_timings(memory: AuraMemory, params: AuraParams, ticks: int, rows: int, seconds: float) -> dict[str, Timing]:
    """Whole scans of `ticks` by `rows`: ours, the naive one, and both with the gradient of the answer."""
    zs, state = jax.random.normal(jax.random.key(3), (ticks, rows, FEATURES)), memory.init(rows)
    resets = jnp.zeros((ticks, rows), bool)

    def ours(p: AuraParams) -> jax.Array:
        chunk: jax.Array | None = scan(memory, p, state, zs, resets)[1].chunk
        assert chunk is not None
        return chunk

    def naive(p: AuraParams) -> jax.Array:
        out: jax.Array = naive_scan(p, state, zs)[1]
        return out

    def ready(call: Callable[[AuraParams], Any]) -> Callable[[], object]:
        return lambda: jax.tree.map(np.asarray, call(params))

    calls = {}
    for name, form in (("scan", ours), ("naive scan", naive)):
        calls[name] = ready(jax.jit(lambda p, form=form: form(p).sum()))
        calls[f"{name} and its gradient"] = ready(jax.jit(jax.grad(lambda p, form=form: jnp.mean(form(p) ** 2))))
    return measure_in_turn(calls, seconds)
