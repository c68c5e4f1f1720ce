"""Figures and page of the synthetic benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.sim.bench.synthetic.arms import ARMS, BY_NAME, FAMILIES, FIXED_SIZE, HARD, HORIZONS, Arm
from vlamem.sim.results.pages import Figure

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


SHOWN_KINDS = ("event", "lookalike", "repeat", "noise", "loud")
"""Kinds of ticks whose write probability a table shows."""


@dataclass(frozen=True)
class ArmRow:
    """One arm on one setting.

    Attributes:
        arm: which.
        best: whether it is the best baseline of constant size.
        accuracy, writes: mean over the seeds.
        ratio: writes of the best baseline over this arm's; None unless the arm is within a point of it.
        chances: mean write probability at a tick of each of SHOWN_KINDS; None where there was none.
    """

    arm: Arm
    best: bool
    accuracy: Figure
    writes: Figure
    ratio: float | None
    chances: tuple[float | None, ...]


def setting_rows(arms: Mapping[str, list[dict[str, Any]]]) -> list[ArmRow]:
    """Accuracy, writes, ratio of writes and write probabilities of every arm on one setting."""
    best = best_fixed(arms)
    bar = float(np.mean(accuracy(arms[best]))) - 0.01 if best else 1.0
    rows = []
    for arm in ARMS:
        if arm.name not in arms:
            continue
        seeds = arms[arm.name]
        level, rate = float(np.mean(accuracy(seeds))), float(np.mean(writes(seeds)))
        ratio = float(np.mean(writes(arms[best]))) / rate if best and level >= bar and rate > 0 else None
        chances = [write_probability(seeds, kind) for kind in SHOWN_KINDS]
        means = tuple(float(np.mean(c)) if c else None for c in chances)
        rows.append(ArmRow(arm, arm.name == best, _mean(accuracy(seeds)), _mean(writes(seeds)), ratio, means))
    return rows


@dataclass(frozen=True)
class SummaryRow:
    """One setting: accuracy by arm [%], and how far the learned gate is from the best baseline [points]."""

    setting: str
    accuracy: Mapping[str, float]
    gap: float | None
    best: str


def summary_rows(found: Found) -> list[SummaryRow]:
    """Accuracy of every arm at every setting."""
    rows = []
    for setting in _settings(found):
        there = of(found, setting)
        means = {name: float(100 * np.mean(accuracy(seeds))) for name, seeds in there.items()}
        rows.append(SummaryRow(setting, means, _gap(there), BY_NAME[best_fixed(there) or "always"].title))
    return rows


@dataclass(frozen=True)
class Goal:
    """What was aimed at.

    Attributes:
        figure: its name.
        what: it is.
        least, most: bounds; one of them is given.
        published: what the paper reports.
    """

    figure: str
    what: str
    least: float | None = None
    most: float | None = None
    published: str = ""

    def reached(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


GOALS = (
    Goal("worst_gap_to_best_points", "points above the best fixed-size baseline, at the worst setting", least=-1),
    Goal("oracle_write_ratio", "writes, of those of the oracle gate", most=1.15),
    Goal(
        "always_write_ratio_10pct",
        "writes of always-write at 10 % events, of ours",
        least=8.7,
        published="5.19 to 6.13; easy 9.19",
    ),
    Goal("p_write_event", "write probability on events", least=0.97, published="0.829"),
    Goal("p_write_lookalike", "write probability on look-alikes", most=0.03, published="0.318"),
    Goal("random_gap_points", "points above random writing of the same budget", least=30),
    Goal("periodic_gap_points", "points above periodic writing of the same budget", least=30),
    Goal("length_drop_points", "points lost from 256 to 4,096 ticks", most=2),
)


def not_run(found: Found) -> list[str]:
    """Arms that are missing from the tables, with their family."""
    return [
        f"{arm.title} ({family})"
        for family in FAMILIES
        for arm in ARMS
        if family in arm.families and arm.name not in found.get(family, {})
    ]


def page_of(found: Found, folder: Path, plots: Sequence[Path], notes: bool) -> Page:
    """The page of finished arms; `notes` are of the full run alone."""
    given, names = figures(found), _settings(found)
    text = render(
        "vlamem.sim.bench.synthetic",
        "page.md.j2",
        preset=next(done for arms in found.values() for done in arms.values())["preset"],
        missing=not_run(found),
        goals=GOALS,
        figures=given,
        arms=[arm for arm in ARMS if any(arm.name in of(found, s) for s in names)],
        summary=summary_rows(found),
        settings={name: setting_rows(of(found, name)) for name in names},
        found=found,
        by_name=BY_NAME,
        plots=plots,
        notes=notes,
    )
    return Page("synthetic", text, given, folder)
