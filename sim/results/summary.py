"""Sums up a run's episodes: what goes into results.json, and the table at the end."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.statistics import percentiles, wilson95

TOTAL = "total"


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
        "steps": sum(r.steps for r in valid) / len(valid) if valid else None,
        "decisions": sum(r.decisions for r in valid),
        "state_bytes": max((r.state_bytes for r in valid), default=0),
        "writes": sum(r.writes for r in valid),
        "ticks": sum(r.ticks for r in valid),
        **_strict_counts(valid),
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
    """
    clock = results["wall_clock"]["decision_ms"]
    arms = results["arms"]
    shown = Table()
    if len(arms) > 1:
        shown.add_column("memory")
    shown.add_column("task")
    second = any("strict" in body[TOTAL] for body in arms.values())
    headings = ["n", "errors", "success %", "Wilson 95 %", "steps", "ms per decision p50/p95/p99"]
    if second:
        headings[4:4] = ["strict %", "Wilson 95 %"]
    for heading in headings:
        shown.add_column(heading, justify="right")
    for arm, body in arms.items():
        rows = [(t, body["tasks"][t], clock[arm]["tasks"][t]) for t in body["tasks"]]
        for task, counts, ms in [*rows, (TOTAL, body[TOTAL], clock[arm][TOTAL])]:
            if task == TOTAL:
                shown.add_section()
            low, high = counts["wilson95"]
            times = "-" if ms["p50"] is None else "/".join(f"{ms[p]:.1f}" for p in ("p50", "p95", "p99"))
            shown.add_row(
                *([arm] if len(arms) > 1 else []),
                task,
                str(counts["n"]),
                str(counts["errors"]),
                percent(counts["rate"]),
                f"{percent(low)} to {percent(high)}" if counts["n"] else "-",
                *(_strict_cells(counts) if second else ()),
                "-" if counts["steps"] is None else f"{counts['steps']:.0f}",
                times,
            )
    return shown
