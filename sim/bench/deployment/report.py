"""The page docs/results/deployment.md: tables, curves and figures of a deployment."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.sim.bench.deployment.arms import CHANGING, MAIN, Arm, Condition, ablations, conditions_of
from vlamem.sim.bench.deployment.measure import DecisionTimes, Search
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.outcomes import (
    WINDOW,
    Trials,
    last_half,
    late_difference,
    mean_points,
    outcomes,
    recovery,
)
from vlamem.sim.bench.deployment.play import Kit, Series, Trial
from vlamem.sim.bench.deployment.plots import curves
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference
from vlamem.sim.suites.tabletop.shift import Shift

NOTED_CONDITIONS = (
    "press:camera=0.1",
    "press:actuator=0.3",
    "press:table=0.067",
    "place_bowl:lighting=0.25",
    "place_bowl:friction=100",
)
"""The conditions of which the notes speak. Their strengths were chosen on states of the training split, so that the
policy alone succeeds in half to four fifths."""
SIZES = ("conditions", "trials", "orders", "long_trials", "ablation_trials", "states", "prepare_episodes", "kills")
"""Options that make a run smaller than the default."""


@dataclass(frozen=True)
class Found:
    """What the bench found: trials by series, and its measurements."""

    trials: dict[Series, list[Trial]]
    search: list[Search]
    commits: list[float]
    kills: tuple[int, int]
    times: DecisionTimes


def figures_of(bench: DeploymentBench, found: Found) -> dict[str, Figure]:
    """Every figure of the page that could be measured."""
    conditions, orders = conditions_of(bench), range(bench.orders)
    figures: dict[str, Figure] = {}
    for arm, name in (("full", "mean_gain_points"), ("replay", "replay_gain_points")):
        each = [late_difference(found.trials, c, arm, orders, bench.trials) for c in conditions]
        known = [d for d in each if d is not None]
        figures[name] = mean_points(known)
        if arm == "full":
            worst = min(known, key=lambda d: d.ci95[0])
            figures["worst_condition_ci_low_points"] = Figure(100 * worst.ci95[0], worst.n)
    one = conditions[bench.conditions.index(bench.ablation)]
    changed = recovery(outcomes(found.trials, one, "full_change", 0), outcomes(found.trials, one, "policy_change", 0))
    if changed is not None:
        figures["recovery_trials"] = Figure(changed, bench.ablation_trials - bench.ablation_trials // 2)
    times = found.times
    if times.bare:
        figures["decision_time_ratio"] = Figure(float(np.median(times.chain) / np.median(times.bare)), len(times.bare))
        figures["decision_bare_ms"] = Figure(float(np.median(times.bare)), len(times.bare))
        figures["decision_chain_ms"] = Figure(float(np.median(times.chain)), len(times.chain))
        for spoke, name in ((True, "spoken"), (False, "silent")):
            found_ratio = times.ratio(spoke)
            if found_ratio is not None:
                figures[f"decision_{name}_ratio"] = Figure(found_ratio, sum(s == spoke for s in times.spoke))
    if times.bare_sampling:
        ratio = float(np.median(times.steered_sampling) / np.median(times.bare_sampling))
        figures["sampling_time_ratio"] = Figure(ratio, len(times.bare_sampling))
    best = min(found.search, key=lambda s: s.p99)
    figures["retrieval_100k_p99_ms"] = Figure(best.p99, best.queries)
    figures["retrieval_recall"] = Figure(best.recall, best.queries)
    if found.commits:
        figures["commit_ms"] = Figure(float(np.percentile(found.commits, 95)), len(found.commits))
        figures["commit_p50_ms"] = Figure(float(np.median(found.commits)), len(found.commits))
    figures |= _spoken(found.trials, conditions) | _critic(found.trials)
    if found.kills[1]:
        figures["kills_survived"] = Figure(found.kills[0], found.kills[1])
    return figures


def _spoken(trials: Trials, conditions: Sequence[Condition]) -> dict[str, Figure]:
    """Success in the trials in which the memory spoke, and of the policy alone in the same trials."""
    played = {(s.condition, s.arm.name, s.order): t for s, t in trials.items()}
    here, alone = [], []
    for (condition, arm, order), full in played.items():
        bare = played.get((condition, "policy", order), [])
        if arm == "full" and condition in conditions:
            both = [(a.success, b.success) for a, b in zip(full, bare, strict=False) if a.spoke]
            here += [a for a, _ in both]
            alone += [b for _, b in both]
    if not here:
        return {}
    return {
        "success_where_spoken": Figure.rate(sum(here), len(here)),
        "alone_where_spoken": Figure.rate(sum(alone), len(alone)),
    }


def _critic(trials: Trials) -> dict[str, Figure]:
    """Precision and recall of the critic's verdicts in the deployment, against the simulator."""
    judged = [t for s, played in trials.items() if s.arm.name == "full" for t in played]
    accepted = [t.success for t in judged if t.verdict == "success"]
    right = [t.verdict == "success" for t in judged if t.success]
    found = {}
    if accepted:
        found["critic_precision"] = Figure.rate(sum(accepted), len(accepted))
    if right:
        found["critic_recall"] = Figure.rate(sum(right), len(right))
    return found


@dataclass(frozen=True)
class ConditionRow:
    """The last half of the trials under one condition.

    Attributes:
        name: of the condition.
        rates: of the main arms, over all orders.
        differences: of the success memory and of direct replay to the policy alone.
    """

    name: str
    rates: Sequence[Rate]
    differences: Sequence[PairedDifference | None]


def condition_rows(bench: DeploymentBench, trials: Trials) -> list[ConditionRow]:
    """The main arms under every condition."""
    rows, orders = [], range(bench.orders)
    for c in conditions_of(bench):
        rates = [
            Rate.of([x for o in orders for x in last_half(outcomes(trials, c, a.name, o, bench.trials))]) for a in MAIN
        ]
        differences = [late_difference(trials, c, a, orders, bench.trials) for a in ("full", "replay")]
        rows.append(ConditionRow(c.name, rates, differences))
    return rows


@dataclass(frozen=True)
class AblationRow:
    """One arm on the ablation condition, over the last half of its trials; `segments` are those at the end."""

    title: str
    rate: Rate
    difference: PairedDifference | None
    segments: int


def ablation_rows(bench: DeploymentBench, trials: Trials, one: Condition, arms: Sequence[Arm]) -> list[AblationRow]:
    """The main arms and the ablations on one condition in the first order."""
    rows = []
    for arm in arms:
        mine = outcomes(trials, one, arm.name, 0, bench.ablation_trials)
        difference = late_difference(trials, one, arm.name, (0,), bench.ablation_trials)
        stored = next(
            (p[min(len(p), bench.ablation_trials) - 1].segments for s, p in trials.items()
             if (s.condition, s.arm.name, s.order) == (one, arm.name, 0) and p), 0,
        )  # fmt: skip
        rows.append(AblationRow(arm.title, Rate.of(last_half(mine)), difference, stored))
    return rows


@dataclass(frozen=True)
class Change:
    """What happened when the shift changed half-way.

    Attributes:
        after: the shift since then.
        recovered: trials until the memory was as good as the policy alone; None when it was not.
        rows: title of each arm, its rate before and after.
    """

    after: Shift
    recovered: int | None
    rows: Sequence[tuple[str, Rate, Rate]]


def change_of(trials: Trials, one: Condition) -> Change | None:
    """What the changing arms did; None where they were not played."""
    changing = [s for s in trials if s.arm.changes and s.condition == one]
    if not changing or changing[0].after is None:
        return None
    played = {arm.name: outcomes(trials, one, arm.name, 0) for arm in CHANGING}
    rows = []
    for arm in CHANGING:
        values = played[arm.name]
        middle = len(values) // 2
        rows.append((arm.title, Rate.of(values[:middle]), Rate.of(values[middle:])))
    return Change(changing[0].after, recovery(played["full_change"], played["policy_change"]), rows)


def smaller(bench: DeploymentBench) -> list[tuple[str, str, str]]:
    """Where a run has other sizes than the default: the option, its value and the default's."""
    text = (resources.files("vlamem.configs") / "bench_deployment.yaml").read_text(encoding="utf-8")
    default = yaml.safe_load(text)
    found = []
    for name in SIZES:
        value = getattr(bench, name)
        value = list(value) if isinstance(value, tuple) else value
        if value != default[name]:
            found.append((name.replace("_", " "), _plain(value), _plain(default[name])))
    return found


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def text_of(bench: DeploymentBench, found: Found, kit: Kit, pictures: Sequence[str]) -> str:
    """The page's text."""
    conditions = conditions_of(bench)
    one = conditions[bench.conditions.index(bench.ablation)]
    return render(
        "vlamem.sim.bench.deployment",
        "page.md.j2",
        bench=bench,
        main=MAIN,
        conditions=condition_rows(bench, found.trials),
        pictures=pictures,
        notes=bench.conditions == NOTED_CONDITIONS,
        smaller=smaller(bench),
        one=one,
        ablations=ablation_rows(bench, found.trials, one, (*MAIN, *ablations(bench.capacities))),
        change=change_of(found.trials, one),
        window=WINDOW,
        tasks=sorted({c.task for c in conditions}),
        kit=kit,
        search=found.search,
        spoke=float(100 * np.mean(found.times.spoke or [False])),
    )


def options_of(bench: DeploymentBench) -> dict[str, Any]:
    """The options as JSON values, for the page's fingerprint."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(bench).items() if k != "preset"}


def page_of(bench: DeploymentBench, found: Found, kit: Kit) -> Page:
    """The page of what was found, with its curves."""
    bench.results.mkdir(parents=True, exist_ok=True)
    picture = curves(bench, found.trials, bench.results / "deployment_curves.png")
    given = {"weights": kit.sha256, "options": options_of(bench)}
    return Page(
        "deployment", text_of(bench, found, kit, [picture.name]), figures_of(bench, found), bench.results, given
    )
