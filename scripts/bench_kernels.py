"""Time and bytes of a memory tick beside a GRU, a KV cache and a naive scan; writes docs/results/kernels.md.

Example: vlamem bench kernels --preset quick
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.config import load_config

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench kernels`."""

    preset: Literal["smoke", "quick", "full"]
    """smoke: does it run. quick: batches 1 and 64, a minute. full: batches 1, 64, 1,024 and 16,384."""
    out: Path
    """Folder of a smoke or quick run's page."""
    results: Path
    """Folder of a full run's page."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    args = load_config(Args, "bench kernels", arguments, __doc__ or "")
    os.environ.setdefault("XLA_FLAGS", _ONE_THREAD)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from vlamem.sim.bench.kernels.run import KernelBench, run

    batches, seconds, ticks, rows = {
        "smoke": ((1,), 0.02, 16, (2,)),
        "quick": ((1, 64), 0.5, 256, (16,)),
        "full": ((1, 64, 1024, 16384), 1.0, 256, (64, 256)),
    }[args.preset]
    command = shlex.join(["vlamem", "bench", "kernels", *arguments])
    results = args.results if args.preset == "full" else args.out
    bench = KernelBench(batches, seconds, ticks, rows, results, command)
    page, twin = run(bench, lambda text: print(text, flush=True))
    print(f"{page}\n{twin}")
    return 0
