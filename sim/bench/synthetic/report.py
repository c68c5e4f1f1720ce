"""Tables, figures and page of the synthetic benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.sim.bench.synthetic.arms import ARMS, BY_NAME, FAMILIES, FIXED_SIZE, HORIZONS
from vlamem.sim.bench.synthetic.run import HARD
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.suites.synthetic import KINDS

Found = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""{family: {arm: what run_arm gave}}."""


def accuracy(seeds: list[dict[str, Any]]) -> list[float]:
    """Share of right answers of each seed."""
    return [s["right"] / max(1, s["asked"]) for s in seeds]


def writes(seeds: list[dict[str, Any]]) -> list[float]:
    """Writes per tick of each seed."""
    return [s["writes"] / s["ticks"] for s in seeds]


def write_probability(seeds: list[dict[str, Any]], kind: str) -> list[float]:
    """Share of ticks of a kind that were written, of each seed that had such ticks."""
    return [s["kinds"][kind][0] / s["kinds"][kind][1] for s in seeds if s["kinds"][kind][1] > 0]


def of(found: Found, setting: str) -> dict[str, list[dict[str, Any]]]:
    """The seeds of every arm on one setting, by arm."""
    return {
        arm: done["settings"][setting]
        for arms in found.values()
        for arm, done in arms.items()
        if setting in done["settings"]
    }


def best_fixed(arms: Mapping[str, list[dict[str, Any]]]) -> str | None:
    """The baseline of constant size with the highest mean accuracy."""
    there = [name for name in FIXED_SIZE if name in arms]
    return max(there, key=lambda name: float(np.mean(accuracy(arms[name])))) if there else None


def _points(ours: list[float], theirs: list[float]) -> Figure:
    """Difference of accuracies in points, paired by seed."""
    return _mean([100 * (a - b) for a, b in zip(ours, theirs, strict=True)])


def _mean(values: list[float]) -> Figure:
    return Figure.mean(values) if len(values) > 1 else Figure(values[0], 1)


def figures(found: Found) -> dict[str, Figure]:
    """The figures of the page, those that the run can give."""
    hard, given = of(found, HARD), {}
    if "learned" in hard:
        ours = hard["learned"]
        given["seeds"] = Figure(float(len(ours)))
        given["accuracy_hard"] = _mean(accuracy(ours))
        given["p_write_event"] = _mean(write_probability(ours, "event"))
        given["p_write_lookalike"] = _mean(write_probability(ours, "lookalike"))
        given["p_write_repeat"] = _mean(write_probability(ours, "repeat"))
        given["p_write_noise"] = _mean(write_probability(ours, "noise"))
        given["always_write_ratio_10pct"] = _mean([1.0 / max(w, 1e-6) for w in writes(ours)])
        if best := best_fixed(hard):
            given["hard_gap_to_best_points"] = _points(accuracy(ours), accuracy(hard[best]))
        # the oracle gate writes the events and nothing else
        given["oracle_write_ratio"] = _mean([s["writes"] / s["kinds"]["event"][1] for s in ours])
        for name in ("random", "periodic"):
            if name in hard:
                given[f"{name}_gap_points"] = _points(accuracy(ours), accuracy(hard[name]))
    longest, base = f"horizon {HORIZONS[-1]}", of(found, HARD).get("learned")
    if base and "learned" in of(found, longest):
        given["length_drop_points"] = _points(accuracy(base), accuracy(of(found, longest)["learned"]))
    gaps = [gap for gap in (_gap(of(found, s)) for s in _settings(found)) if gap is not None]
    if gaps:
        given["worst_gap_to_best_points"] = Figure(min(gaps), len(gaps))
    return given


def _gap(arms: Mapping[str, list[dict[str, Any]]]) -> float | None:
    best = best_fixed(arms)
    if best is None or "learned" not in arms:
        return None
    return 100 * float(np.mean(accuracy(arms["learned"])) - np.mean(accuracy(arms[best])))


def _settings(found: Found) -> list[str]:
    names: list[str] = []
    for arms in found.values():
        for done in arms.values():
            names += [name for name in done["settings"] if name not in names]
    return names


def _cell(values: list[float], percent: bool = False) -> str:
    if not values:
        return "-"
    figure, scale = _mean(values), 100.0 if percent else 1.0
    if figure.ci95 is None:
        return f"{scale * figure.value:.3g}"
    half = scale * (figure.ci95[1] - figure.ci95[0]) / 2
    return f"{scale * figure.value:.1f} ± {half:.1f}" if percent else f"{figure.value:.4f} ± {half:.4f}"


def setting_table(setting: str, arms: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Accuracy, writes, ratio of writes and write probabilities of every arm on one setting."""
    lines = [
        "| arm | accuracy, % | writes per tick | ratio | event | look-alike | repeat | noise | loud |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    best = best_fixed(arms)
    bar = float(np.mean(accuracy(arms[best]))) - 0.01 if best else 1.0
    for arm in ARMS:
        if arm.name not in arms:
            continue
        seeds = arms[arm.name]
        level, rate = float(np.mean(accuracy(seeds))), float(np.mean(writes(seeds)))
        ratio = f"{float(np.mean(writes(arms[best]))) / rate:.2f}" if best and level >= bar and rate > 0 else "-"
        p = [write_probability(seeds, k) for k in KINDS if k not in ("query",)]
        by_kind = dict(zip([k for k in KINDS if k != "query"], p, strict=True))
        chances = [by_kind[k] for k in ("event", "lookalike", "repeat", "noise", "loud")]
        cells = " | ".join(f"{float(np.mean(c)):.3f}" if c else "-" for c in chances)
        mark = " (best fixed size)" if arm.name == best else ""
        lines.append(
            f"| {arm.title}{mark} | {_cell(accuracy(seeds), True)} | {_cell(writes(seeds))} | {ratio} | {cells} |"
        )
    return [f"### {setting}", "", *lines, ""]


def summary_table(found: Found) -> list[str]:
    """Accuracy of every arm at every setting."""
    names = _settings(found)
    arms = [arm for arm in ARMS if any(arm.name in of(found, s) for s in names)]
    lines = [
        "| setting | " + " | ".join(arm.title for arm in arms) + " | AURA minus best fixed size |",
        "| --- |" + " --- |" * (len(arms) + 1),
    ]
    for setting in names:
        there = of(found, setting)
        cells = [f"{100 * np.mean(accuracy(there[a.name])):.1f}" if a.name in there else "-" for a in arms]
        gap = _gap(there)
        last = "-" if gap is None else f"{gap:+.1f} ({BY_NAME[best_fixed(there) or 'always'].title})"
        lines.append(f"| {setting} | " + " | ".join(cells) + f" | {last} |")
    return lines


GOALS = (
    ("worst_gap_to_best_points", "points above the best fixed-size baseline, at the worst setting", "at least -1", ""),
    ("oracle_write_ratio", "writes, of those of the oracle gate", "at most 1.15", ""),
    (
        "always_write_ratio_10pct",
        "writes of always-write at 10 % events, of ours",
        "at least 8.7",
        "5.19 to 6.13; easy 9.19",
    ),
    ("p_write_event", "write probability on events", "at least 0.97", "0.829"),
    ("p_write_lookalike", "write probability on look-alikes", "at most 0.03", "0.318"),
    ("random_gap_points", "points above random writing of the same budget", "at least 30", ""),
    ("periodic_gap_points", "points above periodic writing of the same budget", "at least 30", ""),
    ("length_drop_points", "points lost from 256 to 4,096 ticks", "at most 2", ""),
)
"""Figure, what it is, what was aimed at, and what the paper reports."""


def goals_table(given: Mapping[str, Figure]) -> list[str]:
    """What was aimed at beside what was measured."""
    lines = ["| what | goal | published | here | reached |", "| --- | --- | --- | --- | --- |"]
    for name, what, goal, published in GOALS:
        side, bound = goal.rsplit(" ", 1)
        value = given[name].value if name in given else None
        reached = None if value is None else (value >= float(bound) if side == "at least" else value <= float(bound))
        said = {True: "yes", False: "no", None: "not run"}[reached]
        lines.append(f"| {what} | {goal} | {published} | {'' if value is None else f'{value:.3g}'} | {said} |")
    return lines


def not_run(found: Found) -> list[str]:
    """One line of what is missing from the tables, empty when nothing is."""
    missing = [
        f"{arm.title} ({family})"
        for family in FAMILIES
        for arm in ARMS
        if family in arm.families and arm.name not in found.get(family, {})
    ]
    return [f"Not run, so missing from the tables: {', '.join(missing)}.", ""] if missing else []


def _sizes(found: Found) -> list[str]:
    lines = [
        "| family | arm | bytes of state a row | parameters | learning rate | error of the sweep by learning rate |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family, arms in found.items():
        for name, done in arms.items():
            tried = ", ".join(f"{rate}: {error:.3f}" for rate, error in done["sweep"].items()) or "-"
            lines.append(
                f"| {family} | {BY_NAME[name].title} | {done['state_bytes']:.0f} | {done['parameters']} "
                f"| {done['learning_rate']:g} | {tried} |"
            )
    return lines


def write_page(found: Found, command: str, out: Path, notes: str, plots: list[Path]) -> tuple[Path, Path]:
    """docs/results/synthetic.md and its twin; `notes` is the page's prose under the tables."""
    one, given = next(done for arms in found.values() for done in arms.values()), figures(found)
    preset = one["preset"]
    lines = [
        "# Synthetic streams: what the gate writes, and what that costs",
        "",
        f"Streams of {preset['ticks']} ticks, 64 features, 8 answers (chance 12.5 %). {preset['seeds']} training seeds",
        f"an arm, {preset['updates']} updates of {preset['rows']} streams, one training a family over all its settings",
        "mixed; scored on fresh streams, the same for every arm. Intervals are 95 % over seeds (Student t). An event",
        "gives a key a new value, a repeat says it again, a look-alike has key and value without the event mark and",
        "changes nothing. Best fixed size: the best of the baselines of constant size, which write at every tick.",
        "Random, periodic, novelty and reconstruction write as often as the straight-through gate does on the same",
        "streams. Ratio: writes of the best fixed-size baseline over the arm's, where that is within a point of it.",
        "The columns event to loud are the probability of a write at such a tick. Every arm's learning rate is the",
        "best of its own sweep, where the last table shows one.",
        "",
        *not_run(found),
        *goals_table(given),
        "",
        "## Accuracy at every setting, %",
        "",
        *summary_table(found),
        "",
        *(line for plot in plots for line in (f"![{plot.stem.replace('_', ' ')}]({plot.name})", "")),
        "## Writes",
        "",
        *(line for setting in _settings(found) for line in setting_table(setting, of(found, setting))),
        "## Sizes and learning rates",
        "",
        *_sizes(found),
        "",
        notes.strip(),
    ]
    return write_result_page("synthetic", command, given, "\n".join(lines), out)
