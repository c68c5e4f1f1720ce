"""The page of the fitted gate: tables, paired differences and figures with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.memory.weights import digest, load_weights
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.demonstrations.arms import FITTED
from vlamem.sim.bench.demonstrations.options import DemonstrationsBench
from vlamem.sim.bench.memory_panel.arms import PanelArm
from vlamem.sim.bench.memory_panel.played import Played, difference, played_of, ratio
from vlamem.sim.bench.memory_panel.report import arm_rows
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, wilson95
from vlamem.sim.suites.registry import load_suite

NOTED = "50109a77e51fba6f"
"""Digest of the gate's parameters that the notes speak of; of another they would say what was not seen."""
_GAPS = {"sentences": "demo_minus_sentence", "random": "demo_random_gap", "periodic": "demo_periodic_gap"}


def _points(d: PairedDifference) -> Figure:
    return Figure(100 * d.value, d.n, (100 * d.ci95[0], 100 * d.ci95[1]))


def figures_of(
    played: Mapping[str, Played], memory: Sequence[str], skills: Sequence[str], chance: Mapping[str, float]
) -> dict[str, Figure]:
    """The page's figures, as far as the arms that they compare were played; rates and writes over the memory tasks."""
    fitted = played[FITTED]
    found = {"demo_success": Figure.rate(*fitted.counts(memory))}
    if (writes := fitted.writes(memory)) is not None:
        found["demo_writes_per_tick"] = Figure(writes)
    if "oracle" in played:
        found["demo_over_oracle"] = ratio(fitted, played["oracle"], memory)
        for task in memory:
            found[f"demo_over_oracle_{task}"] = ratio(fitted, played["oracle"], [task])
    if "alone" in played:
        found["demo_minus_alone_points"] = _points(difference(fitted, played["alone"], memory))
        if skills:
            worst = min((difference(fitted, played["alone"], [t]) for t in skills), key=lambda d: d.ci95[0])
            found["demo_worst_skill_ci_low_points"] = Figure(100 * worst.ci95[0], worst.n)
            found["demo_skills_difference_points"] = _points(difference(fitted, played["alone"], skills))
    for name, figure in _GAPS.items():
        if name in played:
            found[f"{figure}_points"] = _points(difference(fitted, played[name], memory))
    if "other" in played:
        successes, n = played["other"].counts(memory)
        mean = float(np.mean([chance[t] for t in memory]))
        low, high = (100 * (x - mean) for x in wilson95(successes, n))
        found["demo_other_points"] = Figure(100 * (played["other"].rate(memory) - mean), n, (low, high))
    return {name: figure for name, figure in found.items() if np.isfinite(figure.value)}


def page_of(options: DemonstrationsBench, arms: Sequence[PanelArm]) -> Page:
    """The page of the arms whose run folders are finished."""
    kinds = load_suite("tabletop").tasks
    played = played_of(arms, options.out)
    memory = [t for t in played[FITTED].tasks if kinds[t].kind == "memory"]
    skills = [t for t in played[FITTED].tasks if kinds[t].kind == "skill"]
    chance = {t: kinds[t].chance for t in memory}
    header, arrays = load_weights(options.gate)
    figures = figures_of(played, memory, skills, chance)
    if "minutes" in header.metrics:
        figures["fit_minutes"] = Figure(header.metrics["minutes"])
    others = {name: p for name, p in played.items() if name != FITTED}
    text = render(
        "vlamem.sim.bench.demonstrations",
        "page.md.j2",
        options=options,
        memory=memory,
        chance=[100 * chance[t] for t in memory],
        mean_chance=float(100 * np.mean(list(chance.values()))),
        arms=arm_rows(played, memory),
        pairs=[(p.arm.title, difference(played[FITTED], p, memory)) for p in others.values()],
        skills=_skills(played, skills),
        held_out=_held_out(header.metrics),
        gate=header.command,
        notes=digest(arrays) == NOTED,
    )
    marks = {"weights": find_policy(options.policy).sha256, "gate": header.command, "seed": options.seed}
    return Page("demonstrations", text, figures, options.results, marks)


def _skills(played: Mapping[str, Played], skills: Sequence[str]) -> list[tuple[str, Played, Played, PairedDifference]]:
    if "alone" not in played:
        return []
    fitted, alone = played[FITTED], played["alone"]
    return [(t, alone, fitted, difference(fitted, alone, [t])) for t in skills]


def _held_out(metrics: Mapping[str, float]) -> list[dict[str, float | str]]:
    """What the weights file says of held-out demonstrations, a row a task."""
    tasks = [name.partition(".")[2] for name in metrics if name.startswith("bare.")]
    names = ("episodes", "bare", "injected", "gain", "gain_low", "gain_high", "kept", "kept_low", "kept_high", "writes")
    return [{"task": t} | {name: metrics.get(f"{name}.{t}", np.nan) for name in names} for t in tasks]
