"""The page docs/results/deployment.md: tables, curves and figures of a deployment."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlamem.sim.bench.deployment.arms import CHANGING, MAIN, Arm, Condition, ablations, conditions_of
from vlamem.sim.bench.deployment.notes import CONDITIONS, NOTES
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.play import Kit, Series, Trial
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.results.statistics import PairedDifference, paired_difference, wilson95

if TYPE_CHECKING:
    from vlamem.sim.bench.deployment.run import Found

WINDOW = 20
"""Trials of a rolling success rate."""
Trials = Mapping[Series, Sequence[Trial]]


def outcomes(trials: Trials, condition: Condition, arm: str, order: int, most: int | None = None) -> list[bool]:
    """Successes of one series in order of trials, the first `most`."""
    for series, played in trials.items():
        if (series.condition, series.arm.name, series.order) == (condition, arm, order):
            return [t.success for t in played][:most]
    return []


def late_difference(
    trials: Trials, condition: Condition, arm: str, orders: Sequence[int], most: int
) -> PairedDifference | None:
    """Success of an arm minus that of the policy alone, over the last half of the first `most` trials of each order."""
    first: list[bool] = []
    second: list[bool] = []
    for order in orders:
        a, b = (outcomes(trials, condition, name, order, most) for name in (arm, "policy"))
        n = min(len(a), len(b))
        first += a[n // 2 : n]
        second += b[n // 2 : n]
    return paired_difference(first, second) if first else None


def mean_points(each: Sequence[PairedDifference]) -> Figure:
    """Mean of independent differences in points; its interval is made of theirs."""
    value = 100 * float(np.mean([d.value for d in each]))
    half = 100 * float(np.sqrt(sum(((d.ci95[1] - d.ci95[0]) / 2) ** 2 for d in each))) / len(each)
    return Figure(value, sum(d.n for d in each), (value - half, value + half))


def recovery(changed: Sequence[bool], bare: Sequence[bool], window: int = WINDOW) -> int | None:
    """Trials after a change until the arm's rate over the last `window` trials is the bare policy's or above.

    Only trials after the change count, and at least half a window of them. None when that does not happen.
    """
    half = min(len(changed), len(bare)) // 2
    a, b = np.asarray(changed[half:], float), np.asarray(bare[half:], float)
    for k in range(window // 2, len(a) + 1):
        recent = slice(max(0, k - window), k)
        if a[recent].sum() >= b[recent].sum():
            return k
    return None


def figures_of(bench: DeploymentBench, found: "Found", kit: Kit) -> dict[str, Figure]:
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


def rate_cell(values: Sequence[bool]) -> str:
    if not values:
        return "not played"
    low, high = wilson95(sum(values), len(values))
    return f"{100 * sum(values) / len(values):.0f} ({100 * low:.0f} to {100 * high:.0f})"


def difference_cell(found: PairedDifference | None) -> str:
    if found is None:
        return "not played"
    low, high = found.ci95
    shown = "" if found.shown else ", no difference shown"
    return f"{100 * found.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), p {found.p:.2g}{shown}"


def _main_table(bench: DeploymentBench, trials: Trials) -> list[str]:
    lines = [
        "| condition | n | " + " | ".join(a.title for a in MAIN) + " | full minus policy | replay minus policy |",
        "| --- | --- | " + " | ".join("---" for _ in MAIN) + " | --- | --- |",
    ]
    for c in conditions_of(bench):
        late = [
            [x for o in range(bench.orders) for x in _late(outcomes(trials, c, a.name, o, bench.trials))] for a in MAIN
        ]
        differences = [
            difference_cell(late_difference(trials, c, a, range(bench.orders), bench.trials))
            for a in ("full", "replay")
        ]
        lines.append(
            f"| {c.name} | {len(late[0])} | "
            + " | ".join(rate_cell(v) for v in late)
            + f" | {' | '.join(differences)} |"
        )
    return lines


def _late(values: Sequence[bool]) -> list[bool]:
    return list(values[len(values) // 2 :])


def _ablation_table(bench: DeploymentBench, trials: Trials, arms: Sequence[Arm]) -> list[str]:
    one = conditions_of(bench)[bench.conditions.index(bench.ablation)]
    lines = ["| arm | n | success, last half | minus policy | segments at the end |", "| --- | --- | --- | --- | --- |"]
    for arm in arms:
        mine = outcomes(trials, one, arm.name, 0, bench.ablation_trials)
        difference = late_difference(trials, one, arm.name, (0,), bench.ablation_trials)
        stored = next(
            (p[min(len(p), bench.ablation_trials) - 1].segments for s, p in trials.items()
             if (s.condition, s.arm.name, s.order) == (one, arm.name, 0) and p), 0,
        )  # fmt: skip
        cells = (rate_cell(_late(mine)), difference_cell(difference))
        lines.append(f"| {arm.title} | {len(_late(mine))} | {' | '.join(cells)} | {stored} |")
    return lines


def _page(bench: DeploymentBench, notes: str, found: "Found", kit: Kit, pictures: Sequence[str]) -> str:
    trials = found.trials
    lines = [
        "# Persistent deployment: a success memory that fills while the robot works",
        "",
        "One robot, one job, a fixed local shift that the frozen policy never saw. The memory is empty at the first",
        f"trial. {bench.trials} consecutive trials in each of {bench.orders} orders of {bench.states} initial states,",
        "which come again and again; noise differs at every trial. Success in per cent over the last half of the",
        "trials, with the Wilson 95 % interval; differences are paired by condition, order, trial, initial",
        "state and noise. What is stored was verified by the learned critic, which does not see the simulator's",
        "verdict.",
        "",
        *_main_table(bench, trials),
        "",
        *(f"![{name}]({name})\n" for name in pictures),
    ]
    if bench.conditions == CONDITIONS:
        lines += [NOTES]
    if notes:
        lines += ["## What was not run", "", notes, ""]
    if bench.ablation_trials:
        one = conditions_of(bench)[bench.conditions.index(bench.ablation)]
        lines += [
            f"## Ablations: {one.name}, the first {bench.ablation_trials} trials of one order",
            "",
            *_ablation_table(bench, trials, (*MAIN, *ablations(bench.capacities))),
            "",
            *_change_lines(bench, trials, one),
        ]
    lines += [
        "## Calibration",
        "",
        f"{bench.prepare_episodes} episodes of the policy alone in states of the training split, a fifth without a",
        "shift and the others over the conditions, gave the threshold of similarity and trained the critic.",
        "",
        "| task | threshold | precision | coverage | critic: precision, recall out of fold |",
        "| --- | --- | --- | --- | --- |",
    ]
    for task in sorted({c.task for c in conditions_of(bench)}):
        c, j = kit.calibration.get(task), kit.critic.get(task)
        cells = ("default", "", "") if c is None else (f"{c.threshold:.4f}", f"{c.precision:.3f}", f"{c.coverage:.3f}")
        judge = "none: the simulator verified" if j is None else f"{j.precision:.3f}, {j.recall:.3f}"
        lines.append(f"| {task} | {' | '.join(cells)} | {judge} |")
    lines += [
        "",
        "## Cost",
        "",
        "Exact search of 16 among random unit vectors of the size of TinyVLA's key and state; storing an episode of 16",
        "segments durably in a memory of 1,000; decisions with and without memory in turn on the same observations.",
        "",
        "| segments | p50 [ms] | p99 [ms] | recall |",
        "| --- | --- | --- | --- |",
        *(f"| {s.segments} | {s.p50:.2f} | {s.p99:.2f} | {s.recall:.4f} |" for s in found.search),
        "",
        f"The memory spoke at {100 * np.mean(found.times.spoke or [False]):.0f} % of the timed decisions, where "
        "sampling takes fewer steps; where it is silent the chain costs what asking it costs.",
    ]
    return "\n".join(lines)


def _change_lines(bench: DeploymentBench, trials: Trials, one: Condition) -> list[str]:
    changing = [s for s in trials if s.arm.changes and s.condition == one]
    if not changing or changing[0].after is None:
        return []
    after = changing[0].after
    halves = {a.name: outcomes(trials, one, a.name, 0) for a in CHANGING}
    rows = []
    for arm in CHANGING:
        values = halves[arm.name]
        middle = len(values) // 2
        rows.append(f"| {arm.title} | {rate_cell(values[:middle])} | {rate_cell(values[middle:])} |")
    took = recovery(halves["full_change"], halves["policy_change"])
    said = "did not recover" if took is None else f"recovered after {took} trials"
    return [
        f"After {bench.ablation_trials // 2} trials the shift becomes {after.kind}={after.strength:g}. The memory",
        f"{said}: its rate over the last {WINDOW} trials since the change (10 at least) is then the bare policy's",
        "or above.",
        "",
        "| arm | before | after |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _options(bench: DeploymentBench) -> dict[str, Any]:
    """The options as JSON values, for the page's fingerprint."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(bench).items() if k != "preset"}


def write_page(bench: DeploymentBench, command: str, notes: str, found: "Found", kit: Kit) -> tuple[Path, Path]:
    """Writes deployment.md, deployment.json and the curves."""
    from vlamem.sim.bench.deployment.plots import curves

    bench.results.mkdir(parents=True, exist_ok=True)
    picture = curves(bench, found.trials, bench.results / "deployment_curves.png")
    given = {"weights": kit.sha256, "options": _options(bench)}
    text = _page(bench, notes, found, kit, [picture.name])
    return write_result_page("deployment", command, figures_of(bench, found, kit), text, bench.results, given)
