"""The page of the memory panel: tables, figures with intervals, plots and a strip of frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.memory.weights import digest, load_weights
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.memory_panel.arms import STARTS, PanelArm
from vlamem.sim.bench.memory_panel.controls import gate_file
from vlamem.sim.bench.memory_panel.notes import GATE, NOTED
from vlamem.sim.bench.memory_panel.options import PanelOptions
from vlamem.sim.bench.memory_panel.plots import bars, lines, strip
from vlamem.sim.results.compare import Comparison, compare_runs
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import Figure, add_figures, load_results, write_result_page
from vlamem.sim.results.statistics import PairedDifference, paired_difference, ratio95, wilson95
from vlamem.sim.suites.registry import load_suite


@dataclass(frozen=True)
class Played:
    """What was played of an arm.

    Attributes:
        arm: the arm.
        folder: its run folder.
        tasks: counts by task, as in results.json.
    """

    arm: PanelArm
    folder: Path
    tasks: Mapping[str, Mapping[str, Any]]

    def rate(self, tasks: Sequence[str]) -> float:
        """Mean of the success rates of tasks."""
        return float(np.mean([self.tasks[t]["successes"] / self.tasks[t]["n"] for t in tasks]))

    def counts(self, tasks: Sequence[str]) -> tuple[int, int]:
        """Successes and episodes over tasks."""
        return sum(self.tasks[t]["successes"] for t in tasks), sum(self.tasks[t]["n"] for t in tasks)

    def writes(self, tasks: Sequence[str]) -> float | None:
        """Writes per tick over tasks, None where nothing ticks."""
        ticks = sum(self.tasks[t]["ticks"] for t in tasks)
        return sum(self.tasks[t]["writes"] for t in tasks) / ticks if ticks else None

    def state_bytes(self) -> int:
        """Bytes of the memory's state."""
        return max(int(c["state_bytes"]) for c in self.tasks.values())


def write_page(options: PanelOptions, command: str, arms: Sequence[PanelArm]) -> tuple[Path, Path]:
    """Writes the page, its twin, the plots and the strip from the run folders; returns the first two."""
    kinds = load_suite("tabletop").tasks
    played = {}
    for arm in arms:
        folder = options.out / arm.name
        if (folder / "results.json").exists():
            (body,) = load_results(folder)["arms"].values()
            played[arm.name] = Played(arm, folder, body["tasks"])
    memory = [t for t in played["aura"].tasks if kinds[t].kind == "memory"]
    skills = [t for t in played["aura"].tasks if kinds[t].kind == "skill"]
    chance = {t: kinds[t].chance for t in memory}
    header, _ = load_weights(gate_file(options))
    figures = figures_of(played, memory, skills, chance)
    if "minutes" in header.metrics:
        figures["gate_training_minutes"] = Figure(header.metrics["minutes"])
    page = [
        "# The memory panel: a frozen policy that remembers",
        "",
        f"TinyVLA, frozen, on the tabletop suite; {options.execute} of each chunk of 16 are executed open loop. The",
        "wordings were never trained on. All arms are played on the same initial states with the same noise. Success",
        "in per cent with its Wilson 95 % interval; writes are those of the memory tasks, which every arm plays.",
        "",
        *_table(played, memory, chance),
        "",
        *_pairs(played, memory),
        "",
        *_skills(played, skills),
        "",
        *_axes(played, memory, options.execute),
    ]
    results = options.results
    pictures = [bars(played, memory, chance, results / f"{options.page}_arms.png")]
    if any(p.arm.axis for p in played.values()):
        pictures.append(lines(played, memory, options.execute, results / f"{options.page}_axes.png"))
    made = None
    if "alone" in played:
        made = strip(played["alone"].folder, played["aura"].folder, memory, results / f"{options.page}_strip.png")
    page += ["", *(f"![{p.stem}]({p.name})" for p in pictures)]
    if made is not None:
        page += [
            "",
            "The same episode without (above) and with memory (below); a red frame marks a write, the upper bar is the",
            "gate, the blue bar the confidence.",
            "",
            f"![{made.stem}]({made.name})",
        ]
    page += [
        "",
        f"The gate: `{header.command}`; on held-out features",
        f"{100 * header.metrics.get('held_out_right', np.nan):.1f} % right, writes on "
        f"{100 * header.metrics.get('writes_per_tick', np.nan):.2f} % of ticks.",
    ]
    given = panel_marks(options)
    text = "\n".join(page) + _notes(options, played)
    written = write_result_page(options.page, command, figures, text, options.results, given)
    if options.add_to is not None:
        add_figures(options.add_to, options.page, figures, options.results)
    return written


def panel_marks(options: PanelOptions) -> dict[str, Any]:
    """What two panels have in common when their figures may stand on one page."""
    header, _ = load_weights(gate_file(options))
    return {"weights": find_policy(options.policy).sha256, "gate": header.command, "seed": options.seed}


def _notes(options: PanelOptions, played: Mapping[str, Played]) -> str:
    """What is noted of the panel that was played, "" of one that nothing was noted of."""
    _, arrays = load_weights(gate_file(options))
    if (digest(arrays), options.policy, options.preset, options.seed) != (GATE, "tiny", "full", 0):
        return ""
    fits = [n for n in NOTED if n.tasks == options.tasks and options.episodes >= n.episodes]
    return next((n.text for n in fits if played.keys() >= n.arms), "")


def _cell(counts: Mapping[str, Any] | None) -> str:
    if counts is None or not counts["n"]:
        return ""
    low, high = counts["wilson95"]
    return f"{100 * counts['successes'] / counts['n']:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _table(played: Mapping[str, Played], memory: Sequence[str], chance: Mapping[str, float]) -> list[str]:
    lines = [
        "| memory | n a task | mean | " + " | ".join(memory) + " | writes, % of ticks | state, bytes |",
        "| --- | --- | --- | " + " | ".join("---" for _ in memory) + " | --- | --- |",
        f"| chance | | {100 * np.mean(list(chance.values())):.0f} | "
        + " | ".join(f"{100 * chance[t]:.0f}" for t in memory)
        + " | | |",
    ]
    for p in played.values():
        if p.arm.axis:
            continue
        cells = [_cell(p.tasks.get(t)) for t in memory]
        writes = p.writes(memory)
        n = min(p.tasks[t]["n"] for t in memory)
        lines.append(
            f"| {p.arm.title} | {n} | {100 * p.rate(memory):.0f} | "
            + " | ".join(cells)
            + f" | {'' if writes is None else f'{100 * writes:.2f}'} | {p.state_bytes() or ''} |"
        )
    return lines


def _outcomes(folder: Path) -> dict[tuple[str, str, int], EpisodeRecord]:
    return {
        (r.task, r.initial_state, r.seed): r
        for r in EpisodeLog(folder / "episodes.jsonl").read()
        if r.outcome != "error"
    }


def difference(first: Played, second: Played, tasks: Sequence[str]) -> PairedDifference:
    """Success of `first` minus `second` over the pairs of `tasks` that both have."""
    a, b = _outcomes(first.folder), _outcomes(second.folder)
    pairs = sorted(p for p in a.keys() & b.keys() if p[0] in tasks)
    return paired_difference([a[p].outcome == "success" for p in pairs], [b[p].outcome == "success" for p in pairs])


def _points(d: PairedDifference, sign: float = 1.0) -> Figure:
    low, high = sorted(100 * sign * x for x in d.ci95)
    return Figure(100 * sign * d.value, d.n, (low, high))


def _ratio(first: Played, second: Played, tasks: Sequence[str]) -> Figure:
    """Success of `first` over that of `second` on the episodes that both have, nan over 0; its interval is that of the
    pooled rates of both."""
    a, b = _outcomes(first.folder), _outcomes(second.folder)
    both = [p for p in a.keys() & b.keys() if p[0] in tasks]
    counts, over = ((sum(o[p].outcome == "success" for p in both), len(both)) for o in (a, b))
    if not over[0]:
        return Figure(np.nan)
    low, high = ratio95(counts, over)
    value = counts[0] / over[0]
    return Figure(value, counts[1], (min(low, value), max(high, value)))


def _drop(played: Mapping[str, Played], point: Played, memory: Sequence[str]) -> Figure | None:
    """Points that an arm loses at a point of an axis; None when it was not played where the panel itself is."""
    base, tasks = played.get(point.arm.base), [t for t in memory if t in point.tasks]
    return None if base is None else _points(difference(base, point, tasks))


def _core_hours(played: Mapping[str, Played]) -> float:
    """What all episodes took, each on one core."""
    logs = (p.folder / "episodes.jsonl" for p in played.values())
    return sum(float(r.wall_clock["seconds"]) for log in logs if log.exists() for r in EpisodeLog(log).read()) / 3600


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
        found["aura_over_oracle"] = _ratio(aura, played["oracle"], memory)
        for name in ("gru", "kv_window", "kv_growing", "first"):
            if name in played:
                found[f"{name.removesuffix('_window')}_over_oracle"] = _ratio(played[name], played["oracle"], memory)
    found["aura_success"] = Figure.rate(*aura.counts(memory))
    found["writes_per_tick"] = Figure(writes)
    if "always" in played:
        found["always_write_ratio"] = Figure((played["always"].writes(memory) or np.nan) / writes)
    for name in (
        "always",
        "random",
        "periodic",
        "freeze",
        "noise",
        "other",
        "chunk",
        "both",
        "proposal",
        "blend",
        "replan",
    ):
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
    if hours := _core_hours(played):
        found["core_hours"] = Figure(hours)
    return {name: f for name, f in found.items() if np.isfinite(f.value)}


def _pairs(played: Mapping[str, Played], memory: Sequence[str]) -> list[str]:
    aura = played["aura"]
    lines = [
        "AURA-Mem minus each arm over the memory tasks, in pairs of (task, initial state, seed):",
        "",
        "| arm | pairs | points | 95 % interval | only AURA | only the arm | McNemar p | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, p in played.items():
        if name == "aura" or p.arm.axis:
            continue
        d = difference(aura, p, memory)
        low, high = d.ci95
        word = "" if d.shown else "no difference shown"
        lines.append(
            f"| {p.arm.title} | {d.n} | {100 * d.value:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} | {d.only_first} "
            f"| {d.only_second} | {d.p:.2g} | {word} |"
        )
    return lines


def _skills(played: Mapping[str, Played], skills: Sequence[str]) -> list[str]:
    if not skills or "alone" not in played:
        return []
    compared: Comparison = compare_runs(played["aura"].folder, played["alone"].folder)
    lines = [
        "Skills, for which nothing has to be remembered: with memory minus without.",
        "",
        "| skill | policy alone | with AURA-Mem | points | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for t in skills:
        d = compared.tasks[t]
        cells = [_cell(played[a].tasks[t]) for a in ("alone", "aura")]
        low, high = d.ci95
        lines.append(
            f"| {t} | {cells[0]} | {cells[1]} | {100 * d.value:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} |"
        )
    return lines


def _axes(played: Mapping[str, Played], memory: Sequence[str], execute: int) -> list[str]:
    """A table of each axis of each arm, from the point that the panel has itself on."""
    points = [p for p in played.values() if p.arm.axis]
    if not points:
        return []
    lines = [
        "| axis | n | mean | " + " | ".join(memory) + " | writes, % of ticks |",
        "| --- | --- | --- | " + " | ".join("---" for _ in memory) + " | --- |",
    ]
    begun = set()
    for p in points:
        base, tasks = played.get(p.arm.base), [t for t in memory if t in p.tasks]
        if base is not None and (p.arm.base, p.arm.axis) not in begun:
            begun.add((p.arm.base, p.arm.axis))
            lines.append(_axis_row(base, f"{base.arm.title}, {STARTS[p.arm.axis].format(execute)}", memory, tasks))
        lines.append(_axis_row(p, p.arm.title, memory, tasks))
    return lines


def _axis_row(p: Played, title: str, memory: Sequence[str], tasks: Sequence[str]) -> str:
    cells = [_cell(p.tasks[t] if t in tasks else None) for t in memory]
    n, writes = min(p.tasks[t]["n"] for t in tasks), p.writes(tasks)
    written = "" if writes is None else f"{100 * writes:.2f}"
    return f"| {title} | {n} | {100 * p.rate(tasks):.0f} | " + " | ".join(cells) + f" | {written} |"
