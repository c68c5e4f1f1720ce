"""Compares two runs, paired by task, initial state and seed.

Prints the difference in success (first minus second, in percentage points) with its 95 % interval and the exact McNemar
p-value, for each task and in all, and names the episodes that only one run has.

Example: vlamem compare runs/with-memory runs/without

Exit status: 0 compared, 2 not comparable.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from vlamem.scripts.config import parse
from vlamem.sim.results.compare import Pair, compare_runs, verdict
from vlamem.sim.results.summary import TOTAL

_NAMED = 10
_WIDTH = 110


@dataclass(frozen=True)
class CompareOptions:
    """Two run folders."""

    first: tyro.conf.Positional[Path]
    """Run folder."""
    second: tyro.conf.Positional[Path]
    """Run folder that is subtracted from the first."""


def _name(console: Console, folder: Path, unpaired: tuple[Pair, ...]) -> None:
    if not unpaired:
        return
    named = [f"{task} {state} seed {seed}" for task, state, seed in unpaired[:_NAMED]]
    more = f" and {len(unpaired) - _NAMED} more" if len(unpaired) > _NAMED else ""
    text = f"not paired, only in {folder}: {', '.join(named)}{more}"
    console.print(text, highlight=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    """`vlamem compare`."""
    options = parse(CompareOptions, "compare", arguments, __doc__)
    comparison = compare_runs(options.first, options.second)
    shown = Table()
    shown.add_column("task")
    for heading in ("pairs", "difference", "95 %", "only first", "only second", "McNemar p"):
        shown.add_column(heading, justify="right")
    shown.add_column("")
    for task, difference in [*comparison.tasks.items(), (TOTAL, comparison.total)]:
        if task == TOTAL:
            shown.add_section()
        low, high = difference.ci95
        shown.add_row(
            task,
            str(difference.n),
            f"{100 * difference.value:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            str(difference.only_first),
            str(difference.only_second),
            f"{difference.p:.3g}",
            verdict(difference),
        )
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(shown)
    _name(console, options.first, comparison.only_first)
    _name(console, options.second, comparison.only_second)
    return 0
