"""Checks versions, rendering, devices and weights, and says how to mend what is broken; or says what a checkpoint is.

Each GL backend is tried in a process of its own: one picture is drawn and read back. Of a checkpoint of lerobot, named
as for --policy, it says family, size, cameras, statistics and which of them are inert, control rate, taps, injection
points, what memory can do with it, and the command to go on with. A dataset's folder after it says names and rate.

Example: vlamem doctor --json
         vlamem doctor 'checkpoints/act?actions=so101&hz=30' data/my_dataset

Exit status: 0 all is well (optional parts may be absent), 1 something is broken or refused.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlamem.core.check import Check
from vlamem.scripts.config import parse
from vlamem.sim.doctor import examine
from vlamem.sim.results.pages import fingerprint
from vlamem.sim.suites import registry


@dataclass(frozen=True)
class DoctorOptions:
    """What to look at, and how to print."""

    checkpoint: tyro.conf.Positional[str] = ""
    """Checkpoint of lerobot, with options after a question mark; this machine when none is given."""
    dataset: tyro.conf.Positional[str] = ""
    """Folder of a LeRobotDataset that the checkpoint is to fit."""
    json: bool = False
    """Print one JSON object: ok, checks, fingerprint."""


def main(arguments: list[str]) -> int:
    """`vlamem doctor`."""
    options = parse(DoctorOptions, "doctor", arguments, __doc__)
    if options.checkpoint:
        from vlamem.policies.lerobot.examination import examine_checkpoint

        return _show(options, examine_checkpoint(options.checkpoint, options.dataset or None))
    return _show(options, [*examine(), *registry.examine()])


def _show(options: DoctorOptions, rows: Sequence[Check]) -> int:
    """Prints what was found; 1 where something is broken or refused."""
    broken = [row for row in rows if row.fails]
    if options.json:
        print(
            json.dumps(
                {"ok": not broken, "checks": [asdict(row) for row in rows], "fingerprint": fingerprint()}, indent=2
            )
        )
        return 1 if broken else 0
    shown = Table()
    for heading in ("", "status", "found", "mend"):
        shown.add_column(heading, overflow="fold")
    colours = {"ok": "green", "absent": "yellow", "undeclared": "yellow", "broken": "red", "refused": "red"}
    for row in rows:
        status = f"[{colours[row.status]}]{row.status}[/]"
        shown.add_row(row.name, status, escape(row.found), "" if row.status == "ok" else escape(row.mend))
    console = Console()
    console.print(shown)
    for row in broken:
        console.print(
            f"{row.status}: {row.name}: {row.found}; {row.mend}", highlight=False, soft_wrap=True, markup=False
        )
    for row in rows:
        if row.name == "go on with":  # whole, to be copied: the table breaks it
            console.print(row.found, highlight=False, soft_wrap=True, markup=False)
    return 1 if broken else 0
