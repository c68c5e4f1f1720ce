"""Bytes that durable memory writes: AURA, always-write and a growing KV log; writes docs/results/endurance.md.

Example: vlamem bench endurance --preset quick --results runs/endurance
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.config import load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench endurance`."""

    preset: Literal["smoke", "quick", "full"]
    """smoke: 100 ticks. quick: 1,000, a minute. full: 100,000, as long as the disk takes for 210,000 synced writes."""
    weights: Path | None
    """Trained gate; the one that ships with vlamem when not given."""
    folder: Path
    """Where the arms write: the file system under test."""
    results: Path
    """Folder of the page; only a full run may write docs/results."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    args = load_config(Args, "bench endurance", arguments, __doc__ or "")
    from vlamem.sim.bench.endurance.run import EnduranceBench, run, shipped_weights

    ticks, kills = {"smoke": (100, 1), "quick": (1_000, 3), "full": (100_000, 50)}[args.preset]
    results = args.results if args.preset == "full" else args.folder / args.preset
    command = shlex.join(["vlamem", "bench", "endurance", *arguments])
    bench = EnduranceBench(ticks, kills, args.weights or shipped_weights(), args.folder, results, command)
    page, twin = run(bench, lambda line: print(line, flush=True))
    print(f"{page}\n{twin}")
    return 0
