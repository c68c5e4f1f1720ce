"""Checks versions, rendering, devices and weights, and says how to mend what is broken.

Each GL backend is tried in a process of its own: one picture is drawn and read back.

Example: vlamem doctor --json

Exit status: 0 all is well (optional parts may be absent), 1 something is broken.
"""

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vlamem.scripts.config import parse
from vlamem.sim.doctor import examine
from vlamem.sim.results.pages import fingerprint


@dataclass(frozen=True)
class DoctorOptions:
    """How to print."""

    json: bool = False
    """Print one JSON object: ok, checks, fingerprint."""


def main(arguments: list[str]) -> int:
    """`vlamem doctor`."""
    options = parse(DoctorOptions, "doctor", arguments, __doc__)
    checks = examine()
    broken = [c for c in checks if c.status == "broken"]
    if options.json:
        body = {"ok": not broken, "checks": [asdict(c) for c in checks], "fingerprint": fingerprint()}
        print(json.dumps(body, indent=2))
        return 1 if broken else 0
    shown = Table()
    for heading in ("", "status", "found", "mend"):
        shown.add_column(heading, overflow="fold")
    colours = {"ok": "green", "absent": "yellow", "broken": "red"}
    for check in checks:
        status = f"[{colours[check.status]}]{check.status}[/]"
        shown.add_row(check.name, status, escape(check.found), "" if check.status == "ok" else escape(check.mend))
    console = Console()
    console.print(shown)
    for check in broken:
        console.print(
            f"broken: {check.name}: {check.found}; {check.mend}", highlight=False, soft_wrap=True, markup=False
        )
    return 1 if broken else 0
