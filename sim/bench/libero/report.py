"""The page docs/results/libero.md: tables and figures of the three parts of the LIBERO bench."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.memory.weights import load_weights
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.deployment.arms import MAIN, Condition, conditions_of
from vlamem.sim.bench.deployment.report import (
    difference_cell,
    late_difference,
    mean_points,
    outcomes,
    rate_cell,
)
from vlamem.sim.bench.libero.options import LiberoBench
from vlamem.sim.bench.libero.run import MEMORIES, Found, SuccessPlayed
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import Figure, write_result_page
from vlamem.sim.results.statistics import PairedDifference, paired_difference

Records = Sequence[EpisodeRecord]


def succeeded(records: Records) -> list[bool]:
    """Whether each episode did."""
    return [r.outcome == "success" for r in records]


def difference(first: Records, second: Records) -> PairedDifference | None:
    """Success of `first` minus `second` over the (task, initial state, seed) that both have; None without any."""
    a, b = ({(r.task, r.initial_state, r.seed): r for r in records} for records in (first, second))
    pairs = sorted(a.keys() & b.keys())
    if not pairs:
        return None
    return paired_difference(succeeded([a[p] for p in pairs]), succeeded([b[p] for p in pairs]))


def write_ratio(records: Mapping[str, Records]) -> tuple[float, bool]:
    """Writes of always-write per write of AURA-Mem, per tick each; and whether AURA-Mem wrote at all.

    A gate that never opened is counted with one write: the ratio is then a lower bound.
    """
    rates = {}
    for arm in MEMORIES:
        ticks = sum(r.ticks for r in records[arm])
        rates[arm] = max(1, sum(r.writes for r in records[arm])) / max(1, ticks)
    return rates["always"] / rates["aura"], any(r.writes for r in records["aura"])


def skill_figures(found: Found) -> dict[str, Figure]:
    """Success of the policy alone by suite, and what the scripted experts cover."""
    figures = {}
    for suite, records in found.skills.items():
        good = succeeded(records)
        if good:
            figures[f"{suite.removeprefix('libero_')}_success"] = Figure.rate(sum(good), len(good))
    if found.covered is not None:
        figures["expert_tasks_covered"] = Figure(found.covered)
    return figures


def harm_figures(records: Mapping[str, Records]) -> dict[str, Figure]:
    """Paired differences to the policy alone, and writes."""
    figures: dict[str, Figure] = {}
    for arm in MEMORIES:
        d = difference(records[arm], records["alone"])
        if d is None:
            continue
        low, high = (100 * x for x in d.ci95)
        figures[f"{arm}_no_harm_points"] = Figure(100 * d.value, d.n, (low, high))
        figures[f"{arm}_no_harm_ci_low_points"] = Figure(low, d.n)
        ticks = sum(r.ticks for r in records[arm])
        figures[f"{arm}_writes_per_tick"] = Figure(sum(r.writes for r in records[arm]) / ticks, ticks)
    figures["always_write_ratio"] = Figure(write_ratio(records)[0])
    return figures


def whole_difference(played: SuccessPlayed, condition: Condition, arm: str) -> PairedDifference | None:
    """Success of an arm minus that of the policy alone, over all trials of a job."""
    a, b = (outcomes(played.trials, condition, name, 0) for name in (arm, "policy"))
    n = min(len(a), len(b))
    return paired_difference(a[:n], b[:n]) if n else None


def success_figures(played: SuccessPlayed) -> dict[str, Figure]:
    """Gains of the success memory and of direct replay: means over jobs, of the last half and of all trials."""
    conditions, figures = conditions_of(played.bench), {}
    for arm, name in (("full", "success_memory"), ("replay", "replay")):
        late = [late_difference(played.trials, c, arm, (0,), played.bench.trials) for c in conditions]
        whole = [whole_difference(played, c, arm) for c in conditions]
        for each, which in ((late, "gain_points"), (whole, "gain_all_trials_points")):
            known = [d for d in each if d is not None]
            if known:
                figures[f"{name}_{which}"] = mean_points(known)
        known = [d for d in late if d is not None]
        if known and arm == "full":
            worst = min(known, key=lambda d: d.ci95[0])
            figures["success_memory_worst_task_ci_low_points"] = Figure(100 * worst.ci95[0], worst.n)
    return figures


def _skills(bench: LiberoBench, found: Found) -> list[str]:
    lines = [
        "## The policy alone",
        "",
        f"The benchmark's first {bench.states} stored initial states of each task; {bench.execute} of each chunk are",
        "executed before the next plan.",
    ]
    for suite, records in found.skills.items():
        lines += ["", f"| {suite} | n | success | mean steps |", "| --- | --- | --- | --- |"]
        for task in dict.fromkeys(r.task for r in records):
            mine = [r for r in records if r.task == task]
            steps = float(np.mean([r.steps for r in mine]))
            lines.append(f"| {task} | {len(mine)} | {rate_cell(succeeded(mine))} | {steps:.0f} |")
        lines.append(f"| all | {len(records)} | {rate_cell(succeeded(records))} | |")
    return lines


def _harm(bench: LiberoBench, records: Mapping[str, Records], gate: Path | None) -> list[str]:
    ratio, wrote = write_ratio(records)
    said = (
        f"Always-write writes {ratio:.4g} times as often as AURA-Mem."
        if wrote
        else f"AURA-Mem did not write at all; counted with one write, always-write writes {ratio:.4g} times as often."
    )
    lines = [
        "## A recurrent memory beside the policy",
        "",
        "No task of LIBERO hides anything: a memory has nothing to say there, and the most that it can do is no harm.",
        f"The first {bench.harm_states} states of each task; those of the policy alone are the episodes above.",
        said,
        "",
        "| task | n | policy alone | " + " | ".join(f"{t} | writes, % of ticks" for t in MEMORIES.values()) + " |",
        "| --- | --- | --- |" + " --- | --- |" * len(MEMORIES),
    ]
    every = [text.partition("/")[2] for text in bench.harm_tasks]
    for task in [*every, ""]:
        mine = {arm: [r for r in rs if not task or r.task == task] for arm, rs in records.items()}
        cells = [rate_cell(succeeded(mine["alone"]))]
        for arm in MEMORIES:
            ticks = sum(r.ticks for r in mine[arm])
            cells += [rate_cell(succeeded(mine[arm])), f"{100 * sum(r.writes for r in mine[arm]) / max(1, ticks):.2f}"]
        lines.append(f"| {task or 'all'} | {len(mine['alone'])} | {' | '.join(cells)} |")
    lines += ["", "| arm | pairs | minus the policy alone, points (95 % interval) |", "| --- | --- | --- |"]
    for arm, title in MEMORIES.items():
        d = difference(records[arm], records["alone"])
        lines.append(f"| {title} | {0 if d is None else d.n} | {difference_cell(d)} |")
    if gate is not None:
        header, _ = load_weights(gate)
        rate = header.metrics.get("writes_per_tick")
        held = "" if rate is None else f"; on held-out features it writes on {100 * rate:.2f} % of ticks"
        lines += ["", f"The gate: `{header.command}`{held}."]
    return lines


def _success(bench: LiberoBench, played: SuccessPlayed) -> list[str]:
    word = "the benchmark's own verdict"
    if bench.verify == "critic":
        word = "the learned critic, or by the benchmark where the policy succeeds too seldom to train one"
    lines = [
        "## A success memory that fills",
        "",
        f"{bench.trials} consecutive trials of one job in {bench.success_states} of the benchmark's stored initial",
        "states, which come again and again in drawn orders; noise differs at every trial. The memory is empty at the",
        f"first. What is stored was verified by {word}.",
        "Success in per cent over the last half of the trials; gains are over the policy alone, paired by trial,",
        "initial state and noise, in points.",
        "",
        "| job | n | " + " | ".join(a.title for a in MAIN) + " | gain | gain of replay | gain, all trials |",
        "| --- | --- | " + " | ".join("---" for _ in MAIN) + " | --- | --- | --- |",
    ]
    for c in conditions_of(played.bench):
        late = [outcomes(played.trials, c, a.name, 0) for a in MAIN]
        late = [values[len(values) // 2 :] for values in late]
        gains = [late_difference(played.trials, c, a, (0,), bench.trials) for a in ("full", "replay")]
        gains.append(whole_difference(played, c, "full"))
        cells = [*map(rate_cell, late), *map(difference_cell, gains)]
        lines.append(f"| {c.name} | {len(late[0])} | {' | '.join(cells)} |")
    lines += ["", *_memory(bench, played)]
    return lines


def _memory(bench: LiberoBench, played: SuccessPlayed) -> list[str]:
    """What the memories of part success held and said."""
    lines = [
        f"{bench.prepare_episodes} episodes of the policy alone in states of the training split gave the threshold of",
        "similarity. How often the memory spoke, and what it held at the end:",
        "",
        "| job | threshold | precision, coverage | verified by | spoke, % of decisions | segments |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for series, trials in played.trials.items():
        if series.arm.name != "full":
            continue
        c = played.kit.calibration.get(series.condition.task)
        cells = ("default", "") if c is None else (f"{c.threshold:.4f}", f"{c.precision:.3f}, {c.coverage:.3f}")
        critic = played.kit.critic.get(series.condition.task)
        who = "the benchmark"
        if bench.verify == "critic" and critic is not None:
            who = f"critic of precision {critic.precision:.3f}, recall {critic.recall:.3f} out of fold"
        spoke = sum(t.spoke for t in trials) / max(1, sum(t.decisions for t in trials))
        stored = trials[-1].segments if trials else 0
        lines.append(f"| {series.condition.name} | {' | '.join(cells)} | {who} | {100 * spoke:.1f} | {stored} |")
    return lines


def write_page(bench: LiberoBench, command: str, found: Found) -> tuple[Path, Path]:
    """Writes libero.md and libero.json of what was played; returns the two."""
    lines = [
        "# vlamem's memories on LIBERO",
        "",
        "The benchmark's scenes, stored initial states and verdict, within the step limits that the field uses; images",
        "are of the profile `fast`. Success in per cent with its Wilson 95 % interval; arms are compared in pairs of",
        "(task, initial state, seed).",
    ]
    figures: dict[str, Figure] = {}
    if found.skills:
        figures |= skill_figures(found)
        lines += ["", *_skills(bench, found)]
    if found.harm:
        figures |= harm_figures(found.harm)
        lines += ["", *_harm(bench, found.harm, found.gate)]
    if found.success is not None:
        figures |= success_figures(found.success)
        lines += ["", *_success(bench, found.success)]
    given = {"weights": find_policy(bench.policy).sha256, "options": _options(bench)}
    return write_result_page("libero", command, figures, "\n".join(lines), bench.results, given)


def _options(bench: LiberoBench) -> dict[str, Any]:
    """The options as JSON values, for the page's fingerprint."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return {k: plain(v) for k, v in asdict(bench).items() if k != "preset"}
