"""Figures of a report as JSON values: every count, interval, test and word comes from vlamem.sim.results."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np

from vlamem.core.tick_trace import TIMES, TickTrace
from vlamem.sim.report.runs import Run
from vlamem.sim.results.compare import CompareError, compare_runs, verdict
from vlamem.sim.results.statistics import Percentiles, holm, percentiles
from vlamem.sim.results.summary import TOTAL, summarise

_BINS = 40


def success(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Success of each run by task and in total, with n, its Wilson interval, writes and bytes."""
    found = []
    for run in runs:
        arms, latency = summarise(run.records, run.tasks)
        for arm, body in arms.items():
            entries = [*body["tasks"].items(), (TOTAL, body[TOTAL])]
            for task, counts in entries:
                ms = latency[arm][TOTAL] if task == TOTAL else latency[arm]["tasks"][task]
                low, high = counts["wilson95"]
                known = counts["rate"] is not None
                found.append(
                    {
                        "run": run.label,
                        "memory": arm,
                        "task": task,
                        "n": counts["n"],
                        "errors": counts["errors"],
                        "rate": 100 * counts["rate"] if known else None,
                        "low": 100 * low if known else None,
                        "high": 100 * high if known else None,
                        "steps": counts["steps"],
                        "writes": 100 * counts["writes"] / counts["ticks"] if counts["ticks"] else None,
                        "bytes": counts["state_bytes"],
                        "p50": ms["p50"],
                        "p95": ms["p95"],
                        "p99": ms["p99"],
                    }
                )
    return found


def differences(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run after the first minus the first, paired, by task and in total; and notes of what cannot be paired.

    p-values of the tasks of a pair of runs are adjusted by Holm's method, and so are those of the totals.
    """
    rows: list[dict[str, Any]] = []
    notes = []
    totals = []
    for run in runs[1:]:
        if served := [each.label for each in (run, runs[0]) if each.fingerprint.get("served")]:
            notes.append(f"{run.label} and {runs[0].label} are not compared: episodes of {served[0]} have no pairs.")
            continue
        try:
            comparison = compare_runs(run.folder, runs[0].folder)
        except CompareError as error:
            notes.append(f"{run.label} and {runs[0].label} cannot be compared: {error}.")
            continue
        adjusted = holm([d.p for d in comparison.tasks.values()])
        for (task, difference), p in zip(comparison.tasks.items(), adjusted, strict=True):
            rows.append(_difference(run, runs[0], task, difference, p))
        totals.append((run, comparison.total))
        unpaired = len(comparison.only_first) + len(comparison.only_second)
        if unpaired:
            notes.append(f"{unpaired} episodes of {run.label} and {runs[0].label} have no partner in the other.")
    for (run, difference), p in zip(totals, holm([d.p for _, d in totals]), strict=True):
        rows.append(_difference(run, runs[0], TOTAL, difference, p))
    return rows, notes


def _difference(run: Run, reference: Run, task: str, difference: Any, adjusted: float) -> dict[str, Any]:
    low, high = difference.ci95
    return {
        "first": run.label,
        "second": reference.label,
        "task": task,
        "n": difference.n,
        "value": 100 * difference.value,
        "low": 100 * low,
        "high": 100 * high,
        "only_first": difference.only_first,
        "only_second": difference.only_second,
        "p": difference.p,
        "holm": adjusted,
        "verdict": verdict(replace(difference, p=adjusted)),
    }


def latencies(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Histogram of each run's decisions, in shares; all have the same bins, the last of which takes what is beyond."""
    by_run = {run.label: [ms for r in run.records for ms in r.wall_clock.get("decision_ms", [])] for run in runs}
    everything = [ms for found in by_run.values() for ms in found]
    if not everything:
        return []
    edges = np.linspace(0, float(np.percentile(everything, 99)) * 1.05 + 1e-9, _BINS + 1)
    rows = []
    for run, found in by_run.items():
        counts, _ = np.histogram(np.minimum(found, edges[-1]), edges)
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                rows.append({"run": run, "low": float(low), "high": float(high), "share": 100 * count / len(found)})
    return rows


def parts(run: Run, traces: Sequence[TickTrace]) -> list[dict[str, Any]]:
    """Percentiles of each part of a control step, over the steps of these traces that have it."""
    rows = []
    for name in TIMES:
        found: Percentiles = percentiles([ms for trace in traces for ms in trace.column(name) if ms is not None])
        if not isnan(found.p50):
            part = name.removesuffix("_ms")
            rows.append({"run": run.label, "part": part, "n": found.n} | {p: getattr(found, p) for p in _PERCENTILES})
    return rows


_PERCENTILES = ("p50", "p95", "p99")
