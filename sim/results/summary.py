"""Sums up a run's episodes: what goes into results.json, and the table at the end."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.statistics import clopper_pearson95, percentiles, wilson95

TOTAL = "total"
_FEW = 5
"""With fewer successes or failures a rate is near 0 or 1."""


def _counts(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """n counts episodes that say something about the policy; errors are apart."""
    valid = [r for r in records if r.outcome in ("success", "failure")]
    successes = sum(r.outcome == "success" for r in valid)
    return {
        "n": len(valid),
        "successes": successes,
        "errors": sum(r.outcome == "error" for r in records),
        "rate": successes / len(valid) if valid else None,
        "wilson95": list(wilson95(successes, len(valid))),
        "clopper_pearson95": list(clopper_pearson95(successes, len(valid))),
        "steps": sum(r.steps for r in valid) / len(valid) if valid else None,
        "decisions": sum(r.decisions for r in valid),
        "state_bytes": max((r.state_bytes for r in valid), default=0),
        "writes": sum(r.writes for r in valid),
        "ticks": sum(r.ticks for r in valid),
        **_strict_counts(valid),
        "proposals": (proposals := sum(r.proposals for r in valid)),
        "proposed_weight": sum(r.proposals * r.proposed_weight for r in valid) / proposals if proposals else None,
    }


def _strict_counts(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """The entry "strict" of the second verdict, nothing where no episode has one."""
    judged = [bool(r.strict) for r in records if r.strict is not None]
    if not judged:
        return {}
    n, successes = len(judged), sum(judged)
    wilson = list(wilson95(successes, n))
    return {"strict": {"n": n, "successes": successes, "rate": successes / n, "wilson95": wilson}}


def _latency(records: Iterable[EpisodeRecord]) -> dict[str, float | None]:
    found = asdict(percentiles([ms for r in records for ms in r.wall_clock.get("decision_ms", [])]))
    return {k: None if math.isnan(v) else v for k, v in found.items()}


def summarise(records: Sequence[EpisodeRecord], tasks: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two dicts by arm and task (and "total"): counts that the seed decides, and decision latencies in ms."""
    arms: dict[str, Any] = {}
    latency: dict[str, Any] = {}
    for arm in sorted({r.arm for r in records}):
        of_arm = [r for r in records if r.arm == arm]
        by_task = {task: [r for r in of_arm if r.task == task] for task in tasks}
        arms[arm] = {"tasks": {t: _counts(rs) for t, rs in by_task.items()}, TOTAL: _counts(of_arm)}
        latency[arm] = {"tasks": {t: _latency(rs) for t, rs in by_task.items()}, TOTAL: _latency(of_arm)}
    return arms, latency


def percent(rate: float | None) -> str:
    """A rate in per cent, "-" for None."""
    return "-" if rate is None else f"{100 * rate:.1f}"


def _strict_cells(counts: dict[str, Any]) -> tuple[str, str]:
    """The strict verdict's rate, with n where other episodes have none, and its interval."""
    strict = counts.get("strict")
    if strict is None:
        return "-", "-"
    low, high = strict["wilson95"]
    of = f" (n {strict['n']})" if strict["n"] != counts["n"] else ""
    return f"{percent(strict['rate'])}{of}", f"{percent(low)} to {percent(high)}"


def table(results: dict[str, Any]) -> Table:
    """The table of a run: task, n, success and its Wilson 95 % interval, steps, ms per decision p50/p95/p99.

    Where a suite has a strict verdict, that and its interval stand beside success.
    With fewer than five successes or failures the exact interval (Clopper-Pearson) stands beside Wilson's. With a
    memory that ticks also the share of ticks at which it wrote, and with one that proposed the share of decisions at
    which it did (it abstained at the others) and the mean weight of these proposals, 0 to 1.
    """
    clock = results["wall_clock"]["decision_ms"]
    arms = results["arms"]
    shown = Table()
    if len(arms) > 1:
        shown.add_column("memory")
    shown.add_column("task")
    second = any("strict" in body[TOTAL] for body in arms.values())
    writes = any(body[TOTAL]["ticks"] for body in arms.values())
    proposes = writes or any(body[TOTAL]["proposals"] for body in arms.values())
    of_memory = (["writes %"] if writes else []) + (["proposed %", "weight"] if proposes else [])
    strict = ["strict %", "Wilson 95 %"] if second else []
    for heading in (
        "n", "errors", "success %", "Wilson 95 %", *strict, "steps", *of_memory, "ms per decision p50/p95/p99"
    ):  # fmt: skip
        shown.add_column(heading, justify="right")
    for arm, body in arms.items():
        rows = [(t, body["tasks"][t], clock[arm]["tasks"][t]) for t in body["tasks"]]
        for task, counts, ms in [*rows, (TOTAL, body[TOTAL], clock[arm][TOTAL])]:
            if task == TOTAL:
                shown.add_section()
            times = "-" if ms["p50"] is None else "/".join(f"{ms[p]:.1f}" for p in ("p50", "p95", "p99"))
            shown.add_row(
                *([arm] if len(arms) > 1 else []),
                task,
                str(counts["n"]),
                str(counts["errors"]),
                percent(counts["rate"]),
                _interval(counts),
                *(_strict_cells(counts) if second else ()),
                "-" if counts["steps"] is None else f"{counts['steps']:.0f}",
                *([_share(counts["writes"], counts["ticks"])] if writes else []),
                *([_share(counts["proposals"], counts["decisions"]), _weight(counts)] if proposes else []),
                times,
            )
    return shown


def _interval(counts: dict[str, Any]) -> str:
    """The Wilson interval, and where a rate is near 0 or 1 the one that holds there, too."""
    if not counts["n"]:
        return "-"
    wilson, exact = (" to ".join(percent(end) for end in counts[name]) for name in ("wilson95", "clopper_pearson95"))
    few = min(counts["successes"], counts["n"] - counts["successes"])
    return f"{wilson} (exact {exact})" if few < _FEW else wilson


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "-"


def _weight(counts: dict[str, Any]) -> str:
    weight = counts["proposed_weight"]
    return "-" if weight is None else f"{weight:.2f}"
