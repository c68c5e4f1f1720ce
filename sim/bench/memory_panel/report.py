"""The page of the memory panel: tables, figures with intervals, plots and a strip of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.memory.weights import digest, load_weights
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.memory_panel.arms import STARTS, PanelArm
from vlamem.sim.bench.memory_panel.controls import gate_file
from vlamem.sim.bench.memory_panel.noted import notes_of
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.memory_panel.played import Played, core_hours, difference, played_of, ratio
from vlamem.sim.bench.memory_panel.plots import bars, lines, strip
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.compare import compare_runs
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, wilson95
from vlamem.sim.suites.registry import load_suite

COMPARED = (
    "always", "random", "periodic", "freeze", "noise", "other", "chunk", "both", "proposal", "blend", "replan",
)  # fmt: skip
"""Arms whose distance to AURA-Mem is a figure."""


def panel_marks(options: PanelOptions) -> dict[str, Any]:
    """What two panels have in common when their figures may stand on one page."""
    header, _ = load_weights(gate_file(options))
    return {"weights": find_policy(options.policy).sha256, "gate": header.command, "seed": options.seed}


def _points(d: PairedDifference, sign: float = 1.0) -> Figure:
    low, high = sorted(100 * sign * x for x in d.ci95)
    return Figure(100 * sign * d.value, d.n, (low, high))


def _drop(played: Mapping[str, Played], point: Played, memory: Sequence[str]) -> Figure | None:
    """Points that an arm loses at a point of an axis; None when it was not played where the panel itself is."""
    base, tasks = played.get(point.arm.base), [t for t in memory if t in point.tasks]
    return None if base is None else _points(difference(base, point, tasks))


def figures_of(
    played: Mapping[str, Played], memory: Sequence[str], skills: Sequence[str], chance: Mapping[str, float]
) -> dict[str, Figure]:
    """The page's figures, as far as the arms that they compare were played; rates and writes over the memory tasks."""
    aura, found = played["aura"], {}
    writes = aura.writes(memory) or np.nan
    if "alone" in played:
        s, n = played["alone"].counts(memory)
        mean = float(np.mean(list(chance.values())))
        low, high = (100 * (x - mean) for x in wilson95(s, n))
        found["alone_minus_chance_points"] = Figure(100 * (played["alone"].rate(memory) - mean), n, (low, high))
    if "oracle" in played:
        found["aura_over_oracle"] = ratio(aura, played["oracle"], memory)
        for name in ("gru", "kv_window", "kv_growing", "first"):
            if name in played:
                found[f"{name.removesuffix('_window')}_over_oracle"] = ratio(played[name], played["oracle"], memory)
    found["aura_success"] = Figure.rate(*aura.counts(memory))
    found["writes_per_tick"] = Figure(writes)
    if "always" in played:
        found["always_write_ratio"] = Figure((played["always"].writes(memory) or np.nan) / writes)
    for name in COMPARED:
        if name in played:
            found[f"{name}_gap_points"] = _points(difference(aura, played[name], memory))
    if "alone" in played and skills:
        worst = min((difference(aura, played["alone"], [t]) for t in skills), key=lambda d: d.ci95[0])
        found["worst_skill_ci_low_points"] = Figure(100 * worst.ci95[0], worst.n)
        found["skills_difference_points"] = _points(difference(aura, played["alone"], skills))
    for p in played.values():
        if p.arm.axis and (drop := _drop(played, p, memory)) is not None:
            where = f"{p.arm.axis}{p.arm.value:g}_drop_points"
            found[where if p.arm.base == "aura" else f"{p.arm.base}_{where}"] = drop
    found["state_bytes"] = Figure(aura.state_bytes())
    if hours := core_hours(played):
        found["core_hours"] = Figure(hours)
    return {name: f for name, f in found.items() if np.isfinite(f.value)}


@dataclass(frozen=True)
class ArmRow:
    """One arm, or one point of an axis, over the memory tasks.

    Attributes:
        title: in tables.
        n: episodes a task.
        mean: of the tasks' rates [%].
        rates: by task, in the order of the table; None where it was not played.
        writes: share of ticks [%]; None where nothing ticks.
        state_bytes: of the memory.
    """

    title: str
    n: int
    mean: float
    rates: Sequence[Rate | None]
    writes: float | None
    state_bytes: int


def _row(p: Played, title: str, memory: Sequence[str], tasks: Sequence[str]) -> ArmRow:
    """An arm over `tasks`, those of `memory` that it is counted on."""
    writes = p.writes(tasks)
    return ArmRow(
        title,
        min(p.tasks[t]["n"] for t in tasks),
        100 * p.rate(tasks),
        [p.task_rate(t) if t in tasks else None for t in memory],
        None if writes is None else 100 * writes,
        p.state_bytes(),
    )


def arm_rows(played: Mapping[str, Played], memory: Sequence[str]) -> list[ArmRow]:
    """The arms of the panel itself."""
    return [_row(p, p.arm.title, memory, memory) for p in played.values() if not p.arm.axis]


def axis_rows(played: Mapping[str, Played], memory: Sequence[str], execute: int) -> list[ArmRow]:
    """The points of each axis of each arm, from the point that the panel has itself on."""
    rows, begun = [], set()
    for p in played.values():
        if not p.arm.axis:
            continue
        base, tasks = played.get(p.arm.base), [t for t in memory if t in p.tasks]
        if base is not None and (p.arm.base, p.arm.axis) not in begun:
            begun.add((p.arm.base, p.arm.axis))
            rows.append(_row(base, f"{base.arm.title}, {STARTS[p.arm.axis].format(execute)}", memory, tasks))
        rows.append(_row(p, p.arm.title, memory, tasks))
    return rows


def pair_rows(played: Mapping[str, Played], memory: Sequence[str]) -> list[tuple[str, PairedDifference]]:
    """Title of each other arm of the panel, and success of AURA-Mem minus its own."""
    others = [p for name, p in played.items() if name != "aura" and not p.arm.axis]
    return [(p.arm.title, difference(played["aura"], p, memory)) for p in others]


def skill_rows(
    played: Mapping[str, Played], skills: Sequence[str]
) -> list[tuple[str, Rate | None, Rate | None, PairedDifference]]:
    """Each skill: the policy alone, with AURA-Mem, and the difference; none where they were not played."""
    if not skills or "alone" not in played:
        return []
    compared = compare_runs(played["aura"].folder, played["alone"].folder)
    return [(t, played["alone"].task_rate(t), played["aura"].task_rate(t), compared.tasks[t]) for t in skills]


def page_of(options: PanelOptions, arms: Sequence[PanelArm]) -> Page:
    """The page, with its plots and its strip of frames, of the arms whose run folders are finished."""
    kinds = load_suite("tabletop").tasks
    played = played_of(arms, options.out)
    memory = [t for t in played["aura"].tasks if kinds[t].kind == "memory"]
    skills = [t for t in played["aura"].tasks if kinds[t].kind == "skill"]
    chance = {t: kinds[t].chance for t in memory}
    header, arrays = load_weights(gate_file(options))
    figures = figures_of(played, memory, skills, chance)
    if "minutes" in header.metrics:
        figures["gate_training_minutes"] = Figure(header.metrics["minutes"])
    pictures, frames = _pictures(options, played, memory, chance)
    text = render(
        "vlamem.sim.bench.memory_panel",
        "page.md.j2",
        options=options,
        memory=memory,
        chance=[100 * chance[t] for t in memory],
        mean_chance=float(100 * np.mean(list(chance.values()))),
        arms=arm_rows(played, memory),
        pairs=pair_rows(played, memory),
        skills=skill_rows(played, skills),
        axes=axis_rows(played, memory, options.execute),
        pictures=pictures,
        frames=frames,
        gate=header.command,
        right=100 * header.metrics.get("held_out_right", np.nan),
        writes=100 * header.metrics.get("writes_per_tick", np.nan),
        notes=notes_of(options, digest(arrays), played),
    )
    return Page(options.page, text, figures, options.results, panel_marks(options), options.add_to)


def _pictures(
    options: PanelOptions, played: Mapping[str, Played], memory: Sequence[str], chance: Mapping[str, float]
) -> tuple[list[Path], Path | None]:
    """The plots, and the strip of frames where episodes with and without memory were filmed."""
    results = options.results
    pictures = [bars(played, memory, chance, results / f"{options.page}_arms.png")]
    if any(p.arm.axis for p in played.values()):
        pictures.append(lines(played, memory, options.execute, results / f"{options.page}_axes.png"))
    if "alone" not in played:
        return pictures, None
    path = results / f"{options.page}_strip.png"
    return pictures, strip(played["alone"].folder, played["aura"].folder, memory, path)
