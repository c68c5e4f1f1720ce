"""Compares runs with the first of them, paired by task, initial state and seed.

Prints, for each task and in all, the success of each further run minus that of the first, in percentage points, with
its 95 % interval, the exact McNemar p-value, and that value adjusted for the number of comparisons (Holm). Names the
episodes that one run alone has.

With --plan POINTS it says instead how many pairs a difference of so many points needs: by the pairs of two runs in
which one alone succeeded, or, of one run, by its success, as if the other succeeded independently of it.

Example: vlamem compare runs/alone runs/memory runs/oracle --format md
         vlamem compare runs/alone --plan 10

Exit status: 0 compared, 2 not comparable.
"""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vlamem.scripts.config import parse
from vlamem.sim.results.compare import (
    ComparedRuns,
    CompareError,
    Pair,
    compare_runs,
    compare_with,
    labels_of,
    success_rate,
)
from vlamem.sim.results.plan import discordant_share, pairs_needed
from vlamem.sim.results.summary import TOTAL

_NAMED = 10
_WIDEST = 10_000
_HEADINGS = ("run", "task", "pairs", "difference", "95 %", "only run", "only first", "p", "p (Holm)", "")
Format = Literal["table", "md", "csv", "tex", "json"]


@dataclass(frozen=True)
class CompareOptions:
    """Options of `vlamem compare`."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders; the others are compared with the first."""
    format: Format = "table"
    """How the comparison is printed."""
    plan: float | None = None
    """A difference in percentage points: says how many pairs it needs."""
    power: float = 0.8
    """Chance with which a planned difference is to be seen."""


def main(arguments: list[str]) -> int:
    """`vlamem compare`."""
    options = parse(CompareOptions, "compare", arguments, __doc__)
    if options.plan is not None:
        return _plan(options.runs, options.plan, options.power)
    if len(options.runs) < 2:
        raise CompareError("name two or more run folders: the others are compared with the first")
    compared = compare_with(options.runs[0], options.runs[1:])
    rows = _cells(compared)
    if options.format == "table":
        _print_table(rows, compared.rows[0].reference)
    elif options.format == "json":
        print(json.dumps(_plain(compared), indent=1))
    elif options.format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerows([_named(compared), *rows])
    else:
        print("\n".join((_markdown if options.format == "md" else _tex)([_named(compared), *rows])))
    for (run, other), pairs in compared.unpaired.items():
        print(_missing(run, other, pairs), file=sys.stdout if options.format == "table" else sys.stderr)
    return 0


def _plan(runs: Sequence[Path], points: float, power: float) -> int:
    """Prints how many pairs are needed."""
    if len(runs) not in (1, 2):
        raise CompareError(f"--plan takes one run or two, not {len(runs)}")
    if len(runs) == 2:
        total = compare_runs(runs[1], runs[0]).total
        found = total.only_first + total.only_second
        share = max(found / total.n, abs(points) / 100)
        by = f"{found} of {total.n} pairs of {' and '.join(labels_of(runs))} had one success"
    else:
        successes, n = success_rate(runs[0])
        share = discordant_share(successes / n, points / 100)
        by = f"{labels_of(runs)[0]} succeeds in {successes} of {n}, and the other run independently of it"
    pairs = pairs_needed(points / 100, share, power)
    chance = f"with a chance of {100 * power:g} % (exact McNemar test at 0.05)"
    print(f"{pairs} pairs show {points:+g} points {chance}: {by}")
    return 0


def _cells(compared: ComparedRuns) -> list[list[str]]:
    """A row of text for each difference."""
    found = []
    for row in compared.rows:
        d = row.difference
        low, high = d.ci95
        between = f"{100 * low:+.1f} to {100 * high:+.1f}"
        counts = [str(d.only_first), str(d.only_second), f"{d.p:.3g}", f"{row.holm:.3g}"]
        found.append([row.run, row.task, str(d.n), f"{100 * d.value:+.1f}", between, *counts, row.verdict])
    return found


def _named(compared: ComparedRuns) -> list[str]:
    """The headings, which name what is subtracted."""
    reference = compared.rows[0].reference
    named = {"difference": f"minus {reference} [points]", "only first": f"only {reference}", "": "verdict"}
    return [named.get(heading, heading) for heading in _HEADINGS]


def _plain(compared: ComparedRuns) -> dict[str, object]:
    rows = [
        {
            "run": row.run, "reference": row.reference, "task": row.task, "pairs": row.difference.n,
            "difference": row.difference.value, "ci95": list(row.difference.ci95),
            "only_run": row.difference.only_first, "only_reference": row.difference.only_second,
            "p": row.difference.p, "holm": row.holm, "verdict": row.verdict,
        }
        for row in compared.rows
    ]  # fmt: skip
    missing = [{"run": run, "not_in": other, "pairs": list(pairs)} for (run, other), pairs in compared.unpaired.items()]
    return {"rows": rows, "unpaired": missing}


def _print_table(rows: Sequence[Sequence[str]], reference: str) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"success minus that of {reference}, in percentage points", title_justify="left")
    for heading in _HEADINGS:
        words = heading.replace("first", reference)
        shown.add_column(words, justify="left" if heading in ("run", "task", "") else "right", no_wrap=True)
    for row in rows:
        if row[1] == TOTAL:
            shown.add_section()
        shown.add_row(*row)
        if row[1] == TOTAL:
            shown.add_section()
    wide = Console(width=_WIDEST).measure(shown).maximum
    console = Console()
    console.width = max(console.width, wide)  # names are whole, also where a terminal or a file is narrow
    console.print(shown)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _tex(rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in rows]
    kinds = "".join("l" if heading in ("run", "task", "") else "r" for heading in _HEADINGS)
    head = [rf"\begin{{tabular}}{{{kinds}}}", r"\hline", escaped[0], r"\hline"]
    return [*head, *escaped[1:], r"\hline", r"\end{tabular}"]


def _escaped(cell: str) -> str:
    """A cell as LaTeX prints it."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
    return "".join(special.get(c, c) for c in cell)


def _missing(run: str, other: str, pairs: Sequence[Pair]) -> str:
    named = [f"{task} {state} seed {seed}" for task, state, seed in pairs[:_NAMED]]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return f"not paired, only in {run} and not in {other}: {', '.join(named)}{more}"
