"""Figures and page of the policy alone on the tabletop suite."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.policies.registry import find_policy, load_policy
from vlamem.sim.bench.rate import Rate
from vlamem.sim.bench.skills.options import SkillsBench
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import wilson95
from vlamem.sim.suites.protocol import TaskInfo
from vlamem.sim.suites.registry import load_suite

if TYPE_CHECKING:
    from vlamem.sim.suites.tabletop.leak import ProbeResult

    Probes = Mapping[str, Mapping[str, ProbeResult]]

Rates = Mapping[str, Rate]
"""By task."""


def rates_of(results: Mapping[str, Any]) -> dict[str, Rate]:
    """The rate of each task in the results of one arm."""
    (arm,) = results["arms"].values()
    return {task: Rate(counts["successes"], counts["n"]) for task, counts in arm["tasks"].items()}


def _mean(rates: Rates) -> Figure:
    """Mean of the tasks' rates; every task has the same n, so that the interval is the pooled Wilson interval."""
    successes, n = sum(r.successes for r in rates.values()), sum(r.n for r in rates.values())
    return Figure(float(np.mean([r.successes / r.n for r in rates.values()])), n, wilson95(successes, n))


def figures_of(rates: Mapping[str, Rates], tasks: Mapping[str, TaskInfo], probes: "Probes") -> dict[str, Figure]:
    """What the arms and the probes say, as numbers."""
    skills = {t: r for t, r in rates["test"].items() if tasks[t].kind == "skill"}
    oracle = {t: r for t, r in rates["test"].items() if tasks[t].kind == "oracle"}
    worst = min(skills, key=lambda t: skills[t].successes / skills[t].n)
    novel = {k: {t: r for t, r in rates["novel"].items() if tasks[t].kind == k} for k in ("skill", "oracle")}
    found = [p for looks in probes.values() for p in looks.values()]
    return {
        "skills_success": _mean(skills),
        "oracle_success": _mean(oracle),
        "worst_skill_success": _mean({worst: skills[worst]}),
        "novel_skills_success": _mean(novel["skill"]),
        "novel_oracle_success": _mean(novel["oracle"]),
        "memory_alone_minus_chance_points": _above_chance(rates["memory"], tasks),
        "probe_minus_chance_points": Figure(
            100 * float(np.mean([p.accuracy - p.chance for p in found])), sum(p.n for p in found)
        ),
    }


def _above_chance(rates: Rates, tasks: Mapping[str, TaskInfo]) -> Figure:
    """Mean of the tasks' rates less their chance levels, in points."""
    value = float(np.mean([r.successes / r.n - tasks[t].chance for t, r in rates.items()]))
    chance, pooled = float(np.mean([tasks[t].chance for t in rates])), _mean(rates)
    assert pooled.ci95 is not None
    low, high = pooled.ci95
    return Figure(100 * value, pooled.n, (100 * (low - chance), 100 * (high - chance)))


def text_of(
    rates: Mapping[str, Rates], tasks: Mapping[str, TaskInfo], probes: "Probes", header: Mapping[str, Any], notes: bool
) -> str:
    """The page's text; `notes` are of the shipped weights alone."""
    return render(
        "vlamem.sim.bench.skills", "page.md.j2", rates=rates, tasks=tasks, probes=probes, header=header, notes=notes
    )


def page_of(options: SkillsBench, ends: Mapping[str, Mapping[str, Any]], probes: "Probes") -> Page:
    """The page of the results of every arm and of the probes."""
    tasks = load_suite("tabletop").tasks
    rates = {name: rates_of(results) for name, results in ends.items()}
    source = find_policy(options.policy)
    policy: Any = load_policy(source)
    metrics = policy.header["metrics"]
    (latency,) = ends["test"]["wall_clock"]["decision_ms"].values()
    figures = figures_of(rates, tasks, probes) | {
        "weights_mb": Figure(source.weights.stat().st_size / 1e6 if source.weights else 0.0),
        "parameters_m": Figure(metrics["parameters_m"]),
        "pretrain_minutes": Figure(metrics["minutes"]),
        "decision_p50_ms": Figure(latency["total"]["p50"], latency["total"]["n"]),
    }
    given = {"weights": source.sha256, "pretrain": policy.header["command"], "data": policy.header["data"]}
    text = text_of(rates, tasks, probes, policy.header, notes=options.policy == "tiny")
    return Page("skills", text, figures, options.results, given)
