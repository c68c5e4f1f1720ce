"""Time and bytes of one memory tick: AURA's implementations beside what else could remember, docs/results/kernels.md.

Everything is measured in one run, on one thread of a CPU (and on a GPU where JAX has one), after warm-up.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence

import jax

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.memory.designs.aura import pallas
from vlamem.sim.bench.kernels.options import KernelsBench
from vlamem.sim.bench.kernels.rows import (
    FEATURES,
    Row,
    aura,
    delta_rule_row,
    gru_jax_row,
    gru_torch_row,
    kv_row,
    step_row,
    tick_row,
)
from vlamem.sim.bench.kernels.scan import scan_timings
from vlamem.sim.results.pages import Figure

KV_STEPS = (1_000, 10_000, 100_000)
Speeds = Mapping[int, Mapping[str, float]]
"""Row-ticks a second of each form of the training scan, by rows."""


def run(options: KernelsBench, command: str, progress: Progress) -> Page:
    """Measures everything, and gives the page."""
    sizes = options.sizes
    memory, params = aura()
    gpu = jax.default_backend() == "gpu"
    rows: list[Row] = []
    makers: list[Callable[[], Row]] = [
        lambda p=p: tick_row(memory, params, 4 * sizes.seconds, p)  # type: ignore[misc]  # bound now
        for p in (True, False)
    ]
    makers += [lambda n=n: kv_row(n, sizes.seconds) for n in KV_STEPS]  # type: ignore[misc]  # bound now
    for batch in sizes.batches:
        makers.append(lambda n=batch: step_row(memory, params, n, sizes.seconds))  # type: ignore[misc]  # bound now
        if gpu and pallas.supports(memory.config):
            makers.append(lambda n=batch: step_row(memory, params, n, sizes.seconds, kernel=True))  # type: ignore[misc]  # bound now
        makers.append(lambda n=batch: gru_jax_row(n, sizes.seconds))  # type: ignore[misc]  # bound now
        if gpu and importlib.util.find_spec("fla"):
            makers.append(lambda n=batch: delta_rule_row(n, sizes.seconds))  # type: ignore[misc]  # bound now
        if importlib.util.find_spec("torch"):
            makers.append(lambda n=batch: gru_torch_row(n, sizes.seconds))  # type: ignore[misc]  # bound now
    for make in makers:
        rows.append(make())
        progress.say(rows[-1].line)
    speeds = {}
    for n in sizes.scan_rows:
        scans = scan_timings(memory, params, sizes.scan_ticks, n, 2 * sizes.seconds)
        speeds[n] = {name: 1e6 * sizes.scan_ticks * n / float(t.calls.min()) for name, t in scans.items()}
        for name, value in speeds[n].items():
            progress.say(f"{name}, {n} rows: {value:,.0f} row-ticks a second")
    return page_of(rows, speeds, options, gpu)


def figures_of(rows: Sequence[Row], speeds: Speeds) -> dict[str, Figure]:
    """What the rows and the scans say, as numbers."""
    speed = next(iter(speeds.values()))
    with_head, tick = rows[:2]
    kv = next(r for r in rows if r.name.startswith(f"attention over {KV_STEPS[-1]:,}"))
    p50 = tick.timing.quantile(0.5)
    return {
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


def page_of(rows: Sequence[Row], speeds: Speeds, options: KernelsBench, gpu: bool) -> Page:
    """The page of what was measured; `gpu` says whether JAX had one."""
    text = render(
        "vlamem.sim.bench.kernels",
        "page.md.j2",
        features=FEATURES,
        rows=rows,
        speeds=speeds,
        scan_ticks=options.sizes.scan_ticks,
        gpu=gpu,
        fla=importlib.util.find_spec("fla") is not None,
    )
    return Page("kernels", text, figures_of(rows, speeds), options.folder)
