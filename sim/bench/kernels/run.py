"""Time and bytes of one memory tick: AURA's implementations beside what else could remember, docs/results/kernels.md.

Everything is measured in one run, on one thread of a CPU (and on a GPU where JAX has one), after warm-up.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from vlamem.core.seeding import stream
from vlamem.memory.designs.aura import pallas
from vlamem.memory.designs.aura.config import AuraConfig, HeadConfig
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.designs.aura.step import AuraMemory, AuraParams, AuraState, unit
from vlamem.memory.protocol import flatten, scan, standardise, state_bytes
from vlamem.sim.results.pages import Figure, write_result_page

FEATURES = 256
HEAD = HeadConfig(chunk=(8, 7))
KV_STEPS = (1_000, 10_000, 100_000)
GRU_SIZE = 1_056
"""Units of a GRU whose state has AURA's 4,224 bytes."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class KernelBench:
    """Options of the bench.

    Attributes:
        batches: rows at which the step is measured.
        seconds: of measurement for each entry, after warm-up.
        scan_ticks, scan_rows: shapes of the training scan; the figures are those of the first number of rows.
        results: folder of the page.
        command: what made the page.
    """

    batches: tuple[int, ...]
    seconds: float
    scan_ticks: int
    scan_rows: tuple[int, ...]
    results: Path
    command: str


@dataclass(frozen=True)
class Timing:
    """Call times of one entry in microseconds."""

    calls: np.ndarray[Any, np.dtype[np.float64]]

    def quantile(self, q: float) -> Figure:
        """The quantile with its order-statistic 95 % interval."""
        ordered = np.sort(self.calls)
        n = len(ordered)
        half = 1.96 * np.sqrt(n * q * (1 - q))
        low, mid, high = (int(np.clip(i, 0, n - 1)) for i in (n * q - half, n * q, n * q + half))
        return Figure(float(ordered[mid]), n, (float(ordered[low]), float(ordered[high])))


def _timed(call: Callable[[], object]) -> float:
    """Microseconds of one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def measure(call: Callable[[], object], seconds: float) -> Timing:
    """Times `call` for `seconds` after warm-up; a call that takes longer than that is timed twice."""
    call()
    end = time.perf_counter() + seconds / 10
    while time.perf_counter() < end:
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        times.append(_timed(call))
    return Timing(np.array(times))


def measure_in_turn(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Times several calls one after the other, again and again, so that what disturbs one disturbs all."""
    for call in calls.values():
        call(), call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for name, call in calls.items():
            times[name].append(_timed(call))
    return {name: Timing(np.array(found)) for name, found in times.items()}


@dataclass(frozen=True)
class Row:
    """One line of the table: what, rows, times, state bytes a row, bytes the compiled step touches and the least."""

    name: str
    rows: int
    timing: Timing
    state: float
    moved: float | None = None
    least: float | None = None


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


def run(bench: KernelBench, report: Report) -> tuple[Path, Path]:
    """Measures everything and writes the page and its twin."""
    memory, params = aura()
    gpu = jax.default_backend() == "gpu"
    rows: list[Row] = []
    makers: list[Callable[[], Row]] = [
        lambda p=p: tick_row(memory, params, 4 * bench.seconds, p)  # type: ignore[misc]  # bound now
        for p in (True, False)
    ]
    makers += [lambda n=n: kv_row(n, bench.seconds) for n in KV_STEPS]  # type: ignore[misc]  # bound now
    for batch in bench.batches:
        makers.append(lambda n=batch: step_row(memory, params, n, bench.seconds))  # type: ignore[misc]  # bound now
        if gpu and pallas.supports(memory.config):
            makers.append(lambda n=batch: step_row(memory, params, n, bench.seconds, kernel=True))  # type: ignore[misc]  # bound now
        makers.append(lambda n=batch: gru_jax_row(n, bench.seconds))  # type: ignore[misc]  # bound now
        if gpu and importlib.util.find_spec("fla"):
            makers.append(lambda n=batch: delta_rule_row(n, bench.seconds))  # type: ignore[misc]  # bound now
        if importlib.util.find_spec("torch"):
            makers.append(lambda n=batch: gru_torch_row(n, bench.seconds))  # type: ignore[misc]  # bound now
    for make in makers:
        rows.append(make())
        report(line(rows[-1]))
    speeds = {}
    for n in bench.scan_rows:
        scans = scan_timings(memory, params, bench.scan_ticks, n, 2 * bench.seconds)
        speeds[n] = {name: 1e6 * bench.scan_ticks * n / float(t.calls.min()) for name, t in scans.items()}
        for name, value in speeds[n].items():
            report(f"{name}, {n} rows: {value:,.0f} row-ticks a second")
    speed = speeds[bench.scan_rows[0]]
    with_head, tick = rows[:2]
    kv = next(r for r in rows if r.name.startswith(f"attention over {KV_STEPS[-1]:,}"))
    p50 = tick.timing.quantile(0.5)
    figures = {
        "tick_p50_us": with_head.timing.quantile(0.5),
        "tick_p99_us": with_head.timing.quantile(0.99),
        "tick_without_proposal_p50_us": p50,
        "kv_100k_time_ratio": Figure(kv.timing.quantile(0.5).value / p50.value),
        "kv_100k_best_call_ratio": Figure(float(kv.timing.calls.min() / tick.timing.calls.min())),
        "kv_100k_bytes_ratio": Figure(kv.state / tick.state),
        "state_bytes": Figure(tick.state),
        "scan_steps_per_second": Figure(speed["scan"]),
        "scan_over_naive_ratio": Figure(speed["scan"] / speed["naive scan"]),
        "scan_gradient_over_naive_ratio": Figure(speed["scan and its gradient"] / speed["naive scan and its gradient"]),
    }
    return write_result_page("kernels", bench.command, figures, _page(rows, speeds, bench, gpu), bench.results)


def line(row: Row) -> str:
    """One line of the table."""
    p50, p99 = row.timing.quantile(0.5).value, row.timing.quantile(0.99).value
    moved = "" if row.moved is None else f"{row.moved:,.0f}"
    least = "" if row.least is None else f"{row.least:,.0f}"
    return (
        f"| {row.name} | {row.rows:,} | {p50:,.1f} | {p99:,.1f} | {1e6 * row.rows / p50:,.0f} | {row.state:,.0f} "
        f"| {moved} | {least} |"
    )


def _page(rows: list[Row], speeds: dict[int, dict[str, float]], bench: KernelBench, gpu: bool) -> str:
    if gpu:
        others = "GPU." + ("" if importlib.util.find_spec("fla") else " flash-linear-attention is not installed.")
    else:
        others = (
            "CPU, one thread. There was no GPU: the fused Pallas kernel, which the tests run in interpreter mode, and "
            "flash-linear-attention's delta rule were not run. With a GPU the same command adds their rows."
        )
    return "\n".join(
        [
            "# Kernels: what one memory tick costs",
            "",
            f"Feature size {FEATURES}, chunk 8 x 7, gate open on about one tick in ten; times of whole calls after "
            f"warm-up. The NumPy tick is shown with and without the head, needed only where a plan is made; "
            "attention and GRU have no head here, so the ratio to 100,000 cached steps is to the bare tick, of medians "
            "and of best calls: other work on the machine slows 25 MB from memory more than 0.2 MB from the cache. "
            f"{others}",
            "",
            "| what | rows | p50 us | p99 us | row-ticks/s | state bytes a row | bytes accessed | least bytes |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *map(line, rows),
            "",
            "Bytes accessed are the compiler's own count for the compiled step (operands and results of every fused "
            "loop); least bytes are one read of state, feature and weights, and one store of what a tenth of the rows "
            "write. On a CPU the compiled step reads W once for both reads and once more to store every row's anew, as "
            "it has no conditional store, and z~ once for each matrix it meets; the NumPy tick and the fused kernel "
            "store W on a write only.",
            "",
            f"Training scans over {bench.scan_ticks} ticks, row-ticks a second; naive is `lax.scan` over the equations "
            "as they stand; the four in turn, best call of each, since long calls are disturbed most by whatever else "
            "the machine does:",
            "",
            "| rows | " + " | ".join(next(iter(speeds.values()))) + " |",
            "| --- |" + " --- |" * 4,
            *(f"| {n} | " + " | ".join(f"{v:,.0f}" for v in speed.values()) + " |" for n, speed in speeds.items()),
        ]
    )
