"""Figures and page of the deploy bench."""

import statistics
from typing import NamedTuple

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.deploy.bench import server_kills
from vlamem.deploy.bench.controller_kills import LIMIT_S
from vlamem.deploy.bench.options import DeployBench, DeployOptions
from vlamem.deploy.bench.result import Result, growth


class Measured(NamedTuple):
    """One figure: its value and what is behind it."""

    value: float
    n: int | None

    @property
    def ci95(self) -> None:
        """None of these has an interval."""


Figures = dict[str, Measured]


def figures(result: Result) -> Figures:
    """Every figure of the page; those that could not be measured are left out."""
    quiet, stressed = result.quiet.report, result.faults
    faults, leaks = stressed.report, stressed.leaks
    runs = (quiet, faults, result.revived)
    commands = sum(r["audit"]["commands"] for r in runs)
    stale = sum(r["audit"]["stale"] + (r["received_elsewhere"] or 0) for r in runs)
    labels = sum(len(r["acknowledged"]) for r in runs)
    found: dict[str, tuple[float, int | None]] = {
        "jitter_p50_ms": (quiet["jitter_ms"]["p50"], quiet["rounds"]),
        "jitter_p99_ms": (quiet["jitter_ms"]["p99"], quiet["rounds"]),
        "jitter_max_ms": (quiet["jitter_ms"]["max"], quiet["rounds"]),
        "deadline_misses": (quiet["deadline_misses"], quiet["rounds"]),
        "out_of_limit_commands": (sum(r["audit"]["out_of_limit"] for r in runs), commands),
        "stale_commands": (stale, commands),
        "labels_lost": (result.labels_lost, labels),
        "session_leaks": (leaks.different, leaks.sessions),
        "malformed_survived": (stressed.malformed if result.alive else 0, stressed.malformed),
        **server_kills.figures(stressed.kills),
        "memory_growth_mb": (growth(result.quiet.memory_mb), len(result.quiet.memory_mb)),
        "server_cpu_percent": (result.quiet.cpu_percent, None),
        "server_memory_mb": (max(result.quiet.memory_mb), None),
        "faults_jitter_p99_ms": (faults["jitter_ms"]["p99"], faults["rounds"]),
        "faults_deadline_misses": (faults["deadline_misses"], faults["rounds"]),
        "deaf_client_ended": (float(stressed.deaf_ended), 1),
    }
    for name in ("p50", "p99"):
        if quiet["decision_ms"]:
            found[f"decision_{name}_ms"] = (quiet["decision_ms"][name], quiet["decisions"])
    if result.controller_kills:
        n = len(result.controller_kills)
        found["controller_kills_survived"] = (sum(k.survived for k in result.controller_kills), n)
        found["controller_memories_kept"] = (sum(k.kept for k in result.controller_kills), n)
        resumed = sorted(k.resume_s for k in result.controller_kills if k.resume_s is not None)
        if resumed:
            found["controller_resume_p50_s"] = (statistics.median(resumed), len(resumed))
            found["controller_resume_max_s"] = (resumed[-1], len(resumed))
    if quiet["seams"]:
        found["seam_jump_ratio"] = (quiet["seams"]["ratio"], quiet["seams"]["n"])
        found["seam_acceleration_ratio"] = (quiet["seams"]["acceleration_ratio"], quiet["seams"]["n"])
        found["seam_jerk_ratio"] = (quiet["seams"]["jerk_ratio"], quiet["seams"]["n"])
    return {name: Measured(float(value), n) for name, (value, n) in found.items()}


def text_of(bench: DeployBench, result: Result) -> str:
    """The page's text."""
    return render(
        "vlamem.deploy.bench",
        "page.md.j2",
        bench=bench,
        result=result,
        quiet=result.quiet.report,
        faults=result.faults.report,
        stressed=result.faults,
        leaks=result.faults.leaks,
        limit_s=LIMIT_S,
    )


def page_of(options: DeployOptions, bench: DeployBench, result: Result) -> Page:
    """The page of what was measured."""
    return Page(options.page, text_of(bench, result), figures(result), options.page_folder, {"seed": bench.seed})
