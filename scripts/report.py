"""Makes one HTML page of runs: success with intervals, differences, what memory did in episodes, failures, latency.

The page needs no network and opens from disk. Of several runs every one is compared with the first.

Example: vlamem report runs/alone runs/aura --out runs/report.html

Exit status: 0 written, 2 not possible as asked.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from vlamem.scripts.config import complain, parse
from vlamem.sim.report import ReportOptions, write_report


@dataclass(frozen=True)
class Options:
    """Run folders and what is shown of them."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; the first is the one that the others are compared with."""
    out: Path | None = None
    """The page; report.html in the first run folder when not given."""
    episodes: int = 12
    """Episodes that are shown in full, with video and timelines."""
    megabytes: float = 20.0
    """Size of the page at most; videos are left out from there on."""


def main(arguments: list[str]) -> int:
    """`vlamem report`."""
    options = parse(Options, "report", arguments, __doc__)
    if not options.runs:
        complain("report", "no run folder is given: name the --out of one or several 'vlamem rollout'")
        return 2
    out = options.out or options.runs[0] / "report.html"
    size = write_report(
        options.runs, out, ReportOptions(options.episodes, options.megabytes), lambda note: complain("report", note)
    )
    print(f"report: {out} ({size / 1e6:.1f} MB)")
    return 0
