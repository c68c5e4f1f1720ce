"""What one tick costs: a row of the table for each implementation, and for what else could remember."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import pallas
from vlamem.memory.designs.aura.config import AuraConfig, HeadConfig
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.designs.aura.step import AuraMemory, AuraParams, AuraState
from vlamem.memory.protocol import flatten, state_bytes
from vlamem.sim.bench.kernels.timing import Timing, measure

FEATURES = 256
HEAD = HeadConfig(chunk=(8, 7))
GRU_SIZE = 1_056
"""Units of a GRU whose state has AURA's 4,224 bytes."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what, rows, times, state bytes a row, bytes the compiled step touches and the least."""

    name: str
    rows: int
    timing: Timing
    state: float
    moved: float | None = None
    least: float | None = None

    @property
    def line(self) -> str:
        """As it is shown while the bench runs."""
        p50 = self.timing.quantile(0.5).value
        return f"{self.name}, {self.rows:,} rows: {p50:,.1f} us, {1e6 * self.rows / p50:,.0f} row-ticks a second"


def aura(seed: int = 0) -> tuple[AuraMemory, AuraParams]:
    """The memory under test, with a gate that opens on about one random tick in ten."""
    memory = AuraMemory(AuraConfig(FEATURES, HEAD))
    params = memory.init_params(jax.random.key(seed))
    state = memory.init(64)
    zs = jax.random.normal(jax.random.key(1), (64, 64, FEATURES))
    resets = jnp.zeros((64, 64), bool)
    rate_of = jax.jit(lambda p: memory.scan(p, state, zs, resets)[1].wrote.mean())
    low, high = -8.0, 8.0
    for _ in range(16):
        bias = (low + high) / 2
        moved = params._replace(gate=params.gate | {"out_bias": jnp.array(bias)})
        low, high = (low, bias) if float(rate_of(moved)) > 0.1 else (bias, high)
    return memory, moved


def tick_row(memory: AuraMemory, params: AuraParams, seconds: float, propose: bool) -> Row:
    """The NumPy tick of one row over fresh features, gate included, with or without the head."""
    tick = AuraTick(memory.config, {name: np.asarray(x) for name, x in flatten(params).items()})
    zs = list(stream(0, "kernels", "features").standard_normal((4096, FEATURES), np.float32))
    at = iter(range(10**12))
    state = float(tick.W.nbytes + tick.b.nbytes)
    name = "AURA reference (NumPy), tick and proposal" if propose else "AURA reference (NumPy), tick"
    return Row(name, 1, measure(lambda: tick.tick(zs[next(at) & 4095], propose), seconds), state)


def _bytes_moved(compiled: Any) -> float | None:
    analysis = compiled.cost_analysis()
    return None if not analysis else float(analysis.get("bytes accessed", 0.0)) or None


def _weight_bytes(params: Any) -> float:
    return float(sum(x.nbytes for x in jax.tree.leaves(params)))


def step_row(memory: AuraMemory, params: AuraParams, rows: int, seconds: float, kernel: bool = False) -> Row:
    """The jitted step of `rows` rows, its state donated."""

    def step(state: AuraState, z: jax.Array, reset: jax.Array) -> Any:
        if kernel:
            return pallas.step(params, state, z, reset, config=memory.config)
        return memory.step(params, state, z, reset)

    z = jax.random.normal(jax.random.key(2), (rows, FEATURES))
    reset = jnp.zeros(rows, bool)
    compiled = jax.jit(step, donate_argnums=0).lower(memory.init(rows), z, reset).compile()
    held = [memory.init(rows)]

    def call() -> None:
        held[0], out = compiled(held[0], z, reset)
        out.confidence.block_until_ready()

    timing = measure(call, seconds)
    # read W, b and z of each row and the weights once; store W and b of the tenth of rows that write; store the answer
    answer = 4.0 * (HEAD.outputs + 4)
    least = rows * (4224 * 1.1 + 4.0 * FEATURES + answer) + _weight_bytes(params)
    name = "AURA pallas (fused kernel)" if kernel else "AURA xla (JAX)"
    return Row(name, rows, timing, state_bytes(held[0], rows), _bytes_moved(compiled), least)


def gru_jax_row(rows: int, seconds: float) -> Row:
    """flax's GRU cell with AURA's bytes of state."""
    cell = linen.GRUCell(GRU_SIZE)
    z, h = jax.random.normal(jax.random.key(2), (rows, FEATURES)), jnp.zeros((rows, GRU_SIZE))
    params = cell.init(jax.random.key(0), h, z)
    step = jax.jit(lambda h, z: cell.apply(params, h, z)[0])
    timing = measure(lambda: step(h, z).block_until_ready(), seconds)
    least = rows * (2 * 4224 + 4.0 * FEATURES) + _weight_bytes(params)
    return Row("GRU cell (JAX)", rows, timing, h.nbytes / rows, _bytes_moved(step.lower(h, z).compile()), least)


def gru_torch_row(rows: int, seconds: float) -> Row:
    """torch's GRU cell with AURA's bytes of state, on the GPU where torch has one, else on one thread."""
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cell, h = torch.nn.GRUCell(FEATURES, GRU_SIZE).to(device), torch.zeros(rows, GRU_SIZE, device=device)
    z = torch.randn(rows, FEATURES, device=device)

    def call() -> None:
        cell(z, h)
        _wait(device)

    with torch.inference_mode():
        timing = measure(call, seconds)
    return Row(f"GRU cell (torch, {device})", rows, timing, h.element_size() * h.nelement() / rows)


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def delta_rule_row(rows: int, seconds: float, device: str = "cuda") -> Row:
    """One step of flash-linear-attention's delta rule, W [32, 32] a row: no projections, gate, b or head."""
    import torch
    from fla.ops.delta_rule import fused_recurrent_delta_rule

    k, q, v = (torch.nn.functional.normalize(torch.randn(rows, 1, 1, 32, device=device), dim=-1) for _ in range(3))
    beta = torch.full((rows, 1, 1), 0.9, device=device)
    held = [torch.zeros(rows, 1, 32, 32, device=device)]

    def call() -> None:
        _, held[0] = fused_recurrent_delta_rule(
            q, k, v, beta, scale=1.0, initial_state=held[0], output_final_state=True
        )
        _wait(device)

    with torch.inference_mode():
        timing = measure(call, seconds)
    state = held[0].element_size() * held[0].nelement() / rows
    return Row(f"flash-linear-attention delta rule (torch, {device})", rows, timing, state)


def kv_row(steps: int, seconds: float) -> Row:
    """Attention of one query over a cache of `steps` keys and values of 32 float32, and one more appended, in NumPy."""
    draw = stream(0, "kernels", "kv")
    project = draw.standard_normal((FEATURES, 96), np.float32) / 16
    cache = np.zeros((2, steps, 32), np.float32)
    cache[:] = draw.standard_normal((2, steps, 32), np.float32)
    keys, values = cache
    z, scores = draw.standard_normal(FEATURES, np.float32), np.empty(steps, np.float32)

    def call() -> Any:
        k, v, q = np.split(z @ project, 3)
        keys[-1], values[-1] = k, v
        keys.dot(q, scores)
        np.subtract(scores, scores.max(), scores)
        np.exp(scores, scores)
        return scores.dot(values) / scores.sum()

    return Row(f"attention over {steps:,} cached steps (NumPy)", 1, measure(call, seconds), float(cache.nbytes))
