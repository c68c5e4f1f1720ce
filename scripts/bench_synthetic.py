"""AURA-Mem and every control on synthetic streams; writes docs/results/synthetic.md and synthetic.json, resumable.

Example: vlamem bench synthetic --preset full
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.config import load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench synthetic`."""

    preset: Literal["quick", "full", "smoke"]
    """quick: one family, main arms, 2 seeds, 15 minutes on 2 cores. full: all arms, 5 seeds. smoke: does it run."""
    out: Path
    """Folder of finished arms, one below it for each preset; a stopped bench goes on."""
    only_page: bool
    """Write the page from the arms that are finished; train nothing."""
    results: Path
    """Folder of the page; only a full run may write docs/results, the others write theirs into their own folder."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    args = load_config(Args, "bench synthetic", arguments, __doc__ or "")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from vlamem.sim.bench.synthetic.notes import NOTES
    from vlamem.sim.bench.synthetic.plots import accuracy_against_writes, gate_over_time
    from vlamem.sim.bench.synthetic.report import write_page
    from vlamem.sim.bench.synthetic.run import PRESETS, finished, run

    command = shlex.join(["vlamem", "bench", "synthetic", *arguments])
    folder = args.out / args.preset
    preset = PRESETS[args.preset]
    if args.only_page:
        found = finished(preset, folder)
    else:
        found = run(preset, folder, command, lambda line: print(line, flush=True))
    results = args.results if args.preset == "full" else folder
    plots = []
    if "events" in found:
        plots.append(accuracy_against_writes(found, results / "synthetic_accuracy_against_writes.png"))
        if "trace" in found["events"].get("learned", {}):
            plots.append(gate_over_time(found["events"]["learned"]["trace"], results / "synthetic_gate_over_time.png"))
    page, twin = write_page(found, command, results, NOTES if args.preset == "full" else "", plots)
    print(f"{page}\n{twin}")
    return 0
