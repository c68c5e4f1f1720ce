"""`vlamem bench NAME`: measures one thing and writes docs/results/NAME.md with its machine-readable twin."""

import os
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from vlamem.core.bench import Bench, BenchError, Page, Progress
from vlamem.core.registry import Registry, load_attribute

BENCHES: Registry[Bench] = Registry(
    "bench",
    {
        "memory-panel": "vlamem.sim.bench.memory_panel:BENCH",
        "demonstrations": "vlamem.sim.bench.demonstrations:BENCH",
        "patrol": "vlamem.sim.bench.patrol:BENCH",
        "skills": "vlamem.sim.bench.skills:BENCH",
        "synthetic": "vlamem.sim.bench.synthetic:BENCH",
        "kernels": "vlamem.sim.bench.kernels:BENCH",
        "deploy": "vlamem.deploy.bench:BENCH",
        "faults": "vlamem.sim.bench.faults:BENCH",
        "endurance": "vlamem.sim.bench.endurance:BENCH",
        "deployment": "vlamem.sim.bench.deployment:BENCH",
        "transfer": "vlamem.sim.bench.transfer:BENCH",
        "libero": "vlamem.sim.bench.libero:BENCH",
        "libero-experts": "vlamem.sim.bench.libero_experts:BENCH",
        "mikasa": "vlamem.sim.bench.mikasa:BENCH",
        "taps": "vlamem.sim.bench.taps:BENCH",
        "throughput": "vlamem.sim.bench.throughput:BENCH",
    },
)
"""Every bench, in the order in which they are listed."""


def main(arguments: list[str]) -> int:
    """Runs the bench named first: 0 when its page is written, 1 when it broke off, 2 when none is named.

    Raises ValueError for a bench that is not there, and what the bench raises.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14} {BENCHES.get(name).summary}" for name in BENCHES)
        print(f"usage: vlamem bench NAME [options]\n\n{lines}\n\nexample: vlamem bench kernels --preset quick")
        return 0 if arguments else 2
    bench = BENCHES.get(arguments[0])
    from vlamem.scripts.bars import ProgressBar
    from vlamem.scripts.config import complain, load_config
    from vlamem.scripts.signals import on_termination

    options = load_config(bench.options, f"bench {bench.name}", arguments[1:], bench.description)
    for name, value in bench.environment.items():
        os.environ.setdefault(name, value)
    run: Callable[[Any, str, Progress], Page] = load_attribute(bench.run)
    command = shlex.join(["vlamem", "bench", *arguments])
    try:
        with on_termination(_end) if bench.unwind else nullcontext(), ProgressBar() as progress:
            page = run(options, command, progress)
    except BenchError as error:
        complain(f"bench {bench.name}", str(error))
        return 1
    for path in _write(page, command):
        print(path)
    return 0


def _write(page: Page, command: str) -> tuple[Path, Path]:
    """The page and its twin, written; figures go to another page as well where the bench says so."""
    from vlamem.sim.results.pages import Figure, add_figures, write_result_page

    figures = {name: Figure(f.value, f.n, f.ci95) for name, f in page.figures.items()}
    written = write_result_page(page.name, command, figures, page.text, page.folder, page.given)
    if page.add_to is not None:
        add_figures(page.add_to, page.name, figures, page.folder)
    return written


def _end(number: int) -> None:
    """By an exception, so that nothing that a bench started stays behind."""
    raise SystemExit(128 + number)
