"""The page docs/results/transfer.md: tables and figures of a success memory in fresh initial states."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.memory.success.retrieve import Residual
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.deployment.arms import Arm, Condition
from vlamem.sim.bench.deployment.measure import Search
from vlamem.sim.bench.deployment.outcomes import last_half, late_difference, mean_points, outcomes
from vlamem.sim.bench.deployment.play import Kit, Series, Trial
from vlamem.sim.bench.rate import Rate
from vlamem.sim.bench.transfer.arms import control_arms, main_arms
from vlamem.sim.bench.transfer.cost import Cost
from vlamem.sim.bench.transfer.options import TransferBench
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, paired_difference

NOTED = {
    "trials": 120,
    "explore": 50,
    "controls": (),
    "leave_out": ("place_bowl:friction=100",),
}
"""The run of which the notes speak."""
SIZES = ("conditions", "trials", "explore", "controls", "control_arms", "leave_out", "prepare_episodes")
"""Options that make a run smaller than the default."""


KINDS: dict[str, float | None] = {"states": 0.854, "random": None}
"""Vectors that are searched, and by what their variance falls from one direction to the next.

Of the shipped policy's keys and proprioception 16 of 72 directions hold 92 %, as here; unit vectors that vary in all
alike are the worst case.
"""


@dataclass
class Found:
    """What the bench found.

    Attributes:
        trials, learned: by series; what was learned is that of the end.
        kits: of each task with a control.
        search: by kind of vector and number.
        cost: of a decision; None when it was not measured.
    """

    trials: dict[Series, list[Trial]]
    learned: dict[Series, Residual]
    kits: dict[str, Kit]
    search: dict[tuple[str, int], Search]
    cost: Cost | None

    def conditions(self) -> list[Condition]:
        """Every condition, in the order in which they were played."""
        return list(dict.fromkeys(series.condition for series in self.trials))


@dataclass(frozen=True)
class Row:
    """One arm under one condition.

    Attributes:
        condition: its name.
        title: of the arm.
        rate: of the last half of its trials.
        gain: over the policy alone in the last half, in pairs; None for the policy itself.
        exploring: the same over the trials that were played to learn; None without any.
        spoke: decisions at which the memory proposed something [%].
        learned: at the end; None for an arm without a residual prior.
    """

    condition: str
    title: str
    rate: Rate
    gain: PairedDifference | None
    exploring: PairedDifference | None
    spoke: float
    learned: Residual | None


def rows_of(bench: TransferBench, found: Found, arms: Sequence[Arm], conditions: Sequence[Condition]) -> list[Row]:
    """The arms under the conditions, without what was not played."""
    rows = []
    for condition in conditions:
        for arm in arms:
            series = next((s for s in found.trials if (s.condition, s.arm) == (condition, arm)), None)
            if series is None:
                continue
            mine, alone = (outcomes(found.trials, condition, name, 0) for name in (arm.name, "policy"))
            first = bench.explore if arm.prior == "residual" else 0
            played = found.trials[series]
            gain = late_difference(found.trials, condition, arm.name, (0,), bench.trials)
            rows.append(
                Row(
                    condition.name,
                    arm.title,
                    Rate.of(last_half(mine)),
                    None if arm.mode == "none" else gain,
                    paired_difference(mine[:first], alone[:first]) if first and mine else None,
                    100 * sum(t.spoke for t in played) / max(1, sum(t.decisions for t in played)),
                    found.learned.get(series),
                )
            )
    return rows


def figures_of(bench: TransferBench, found: Found) -> dict[str, Figure]:
    """Every figure of the page that could be measured."""
    conditions = found.conditions()
    figures: dict[str, Figure] = {}
    each = [late_difference(found.trials, c, "residual", (0,), bench.trials) for c in conditions]
    known = [d for d in each if d is not None]
    if known:
        worst = min(known, key=lambda d: d.ci95[0])
        figures["fresh_gain_points"] = mean_points(known)
        figures["fresh_worst_ci_low_points"] = Figure(100 * worst.ci95[0], worst.n)
        figures["fresh_conditions_above_zero"] = Figure(sum(d.ci95[0] > 0 for d in known), len(known))
    controls = {"critic": "critic_gain_points", "unverified": "unverified_gain_points", "full": "elite_gain_points"}
    for arm, name in controls.items():
        each = [late_difference(found.trials, c, arm, (0,), bench.trials) for c in conditions]
        known = [d for d in each if d is not None]
        if known:
            figures[name] = mean_points(known)
    judged = [t for s, played in found.trials.items() if s.arm.name == "critic" for t in played]
    accepted = [t.success for t in judged if t.verdict == "success"]
    right = [t.verdict == "success" for t in judged if t.success]
    if accepted:
        figures["critic_precision"] = Figure.rate(sum(accepted), len(accepted))
    if right:
        figures["critic_recall"] = Figure.rate(sum(right), len(right))
    for (kind, segments), search in found.search.items():
        many = f"{segments // 1_000_000}m" if segments >= 1_000_000 else f"{segments // 1000}k"
        name = f"retrieval_{many}" if kind == "states" else f"retrieval_{kind}_{many}"
        figures[f"{name}_p99_ms"] = Figure(search.p99, search.queries)
        figures[f"{name}_recall"] = Figure(search.recall, search.queries)
    if found.cost is not None:
        figures["decision_time_ratio"] = Figure(found.cost.ratio, len(found.cost.bare))
        figures["decision_bare_ms"] = Figure(float(np.median(found.cost.bare)), len(found.cost.bare))
    return figures


def smaller(bench: TransferBench) -> list[tuple[str, str, str]]:
    """Where a run has other sizes than the default: the option, its value and the default's."""
    text = (resources.files("vlamem.configs") / "bench_transfer.yaml").read_text(encoding="utf-8")
    default = yaml.safe_load(text)
    found = []
    for name in SIZES:
        value = getattr(bench, name)
        value = list(value) if isinstance(value, tuple) else value
        if value != default[name]:
            found.append((name.replace("_", " "), _plain(value), _plain(default[name])))
    return found


def _plain(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def text_of(bench: TransferBench, found: Found) -> str:
    """The page's text."""
    conditions = found.conditions()
    return render(
        "vlamem.sim.bench.transfer",
        "page.md.j2",
        bench=bench,
        main=rows_of(bench, found, main_arms(bench), conditions),
        controls=rows_of(bench, found, control_arms(bench), conditions),
        notes=all(getattr(bench, name) == value for name, value in NOTED.items()),
        smaller=smaller(bench),
        kits=found.kits,
        search=found.search,
        cost=found.cost,
    )


def page_of(bench: TransferBench, found: Found) -> Page:
    """The page of what was found."""
    options: dict[str, Any] = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(bench).items()}
    del options["preset"]
    given = {"weights": find_policy(bench.policy).sha256, "options": options}
    return Page("transfer", text_of(bench, found), figures_of(bench, found), bench.results, given)
