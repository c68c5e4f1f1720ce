"""Writes the figures of runs for papers and for other tools.

Without --episode: success and paired differences as CSV, Markdown and LaTeX, success as SVG and PDF, every episode as
CSV, and for each run an eval_info.json as lerobot-eval writes it. With --episode: the trace of one episode as CSV.

Example: vlamem export runs/alone runs/aura --out runs/tables

Exit status: 0 written, 2 not possible as asked.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from vlamem.scripts.config import complain, parse
from vlamem.sim.report.export import export_runs, export_trace
from vlamem.sim.report.runs import ReportError, find_episode, read_runs


@dataclass(frozen=True)
class Options:
    """Which runs, and where to."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or state folders of servers; the first is the one that the others are compared with."""
    out: Path
    """Folder for the files, or the CSV file of an episode."""
    task: str | None = None
    """Task of --episode, or session of a served one; not needed where there is one alone."""
    episode: int | None = None
    """Write the trace of this episode of the one run that is given."""


def main(arguments: list[str]) -> int:
    """`vlamem export`."""
    options = parse(Options, "export", arguments, __doc__)
    if not options.runs:
        complain("export", "no run folder is given: name the --out of one or several 'vlamem rollout'")
        return 2
    if options.episode is None:
        for path in export_runs(options.runs, options.out):
            print(path)
        return 0
    if len(options.runs) > 1:
        complain("export", f"--episode is of one run and {len(options.runs)} are given: name one")
        return 2
    (run,) = read_runs(options.runs)
    record = find_episode(run, options.task, options.episode)
    trace = run.trace(record)
    if trace is None:
        raise ReportError(f"{record.task} {record.episode} of {run.folder} has no trace: play it without --no-trace")
    export_trace(trace, options.out)
    print(options.out)
    return 0
