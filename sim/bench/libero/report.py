"""The page docs/results/libero.md: tables and figures of the three parts of the LIBERO bench."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.core.bench import Page
from vlamem.core.pages import render
from vlamem.memory.weights import load_weights
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.deployment.arms import MAIN, Condition, conditions_of
from vlamem.sim.bench.deployment.options import DeploymentBench
from vlamem.sim.bench.deployment.outcomes import last_half, late_difference, mean_points, outcomes
from vlamem.sim.bench.deployment.play import Kit, Series, Trial
from vlamem.sim.bench.libero.options import LiberoBench
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.pages import Figure
from vlamem.sim.results.statistics import PairedDifference, paired_difference

MEMORIES = {"aura": "AURA-Mem", "always": "always-write"}
"""Arms beside the policy alone, with their titles."""
Records = Sequence[EpisodeRecord]


@dataclass(frozen=True)
class SuccessPlayed:
    """The trials of the success memory and the kit that they were played with."""

    bench: DeploymentBench
    kit: Kit
    trials: dict[Series, list[Trial]]


@dataclass(frozen=True)
class Found:
    """What was played; empty or None for a part that was not.

    Attributes:
        covered: tasks that the scripted experts cover, from their page.
        skills: the policy's episodes by suite.
        harm: episodes by arm (alone, and MEMORIES) over the tasks and states of part harm.
        gate: AURA-Mem's weights file in it.
        success: of part success.
    """

    covered: float | None = None
    skills: Mapping[str, Sequence[EpisodeRecord]] = field(default_factory=dict)
    harm: Mapping[str, Sequence[EpisodeRecord]] = field(default_factory=dict)
    gate: Path | None = None
    success: SuccessPlayed | None = None


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


@dataclass(frozen=True)
class HarmRow:
    """A task beside a recurrent memory: the policy alone, and of each of MEMORIES its rate and writes [% of ticks]."""

    task: str
    alone: Rate
    arms: Sequence[tuple[Rate, float]]


def harm_rows(bench: LiberoBench, records: Mapping[str, Records]) -> list[HarmRow]:
    """A row a task, and one of all."""
    rows = []
    for task in [*(text.partition("/")[2] for text in bench.harm_tasks), ""]:
        mine = {arm: [r for r in rs if not task or r.task == task] for arm, rs in records.items()}
        arms = []
        for arm in MEMORIES:
            ticks = sum(r.ticks for r in mine[arm])
            arms.append((_rate(mine[arm]), 100 * sum(r.writes for r in mine[arm]) / max(1, ticks)))
        rows.append(HarmRow(task or "all", _rate(mine["alone"]), arms))
    return rows


def _rate(records: Records) -> Rate:
    return Rate.of(succeeded(records))


@dataclass(frozen=True)
class JobRow:
    """A job of the success memory: rates of the main arms over the last half, and gains over the policy alone.

    Attributes:
        name: of the job.
        rates: of the main arms.
        gains: of the success memory, of direct replay, and of the success memory over all trials.
    """

    name: str
    rates: Sequence[Rate]
    gains: Sequence[PairedDifference | None]


def job_rows(bench: LiberoBench, played: SuccessPlayed) -> list[JobRow]:
    """A row a job."""
    rows = []
    for c in conditions_of(played.bench):
        rates = [Rate.of(last_half(outcomes(played.trials, c, a.name, 0))) for a in MAIN]
        gains = [late_difference(played.trials, c, a, (0,), bench.trials) for a in ("full", "replay")]
        rows.append(JobRow(c.name, rates, [*gains, whole_difference(played, c, "full")]))
    return rows


@dataclass(frozen=True)
class MemoryRow:
    """What the memory of one job held and proposed.

    Attributes:
        job: its condition.
        proposed: share of decisions at which it did not abstain [%].
        segments: at the end.
    """

    job: Condition
    proposed: float
    segments: int


def memory_rows(played: SuccessPlayed) -> list[MemoryRow]:
    """A row a job."""
    rows = []
    for series, trials in played.trials.items():
        if series.arm.name == "full":
            spoke = sum(t.spoke for t in trials) / max(1, sum(t.decisions for t in trials))
            rows.append(MemoryRow(series.condition, 100 * spoke, trials[-1].segments if trials else 0))
    return rows


def text_of(bench: LiberoBench, found: Found) -> str:
    """The page's text: the parts that were played."""
    data: dict[str, Any] = {"bench": bench, "memories": MEMORIES, "skills": None, "harm": None, "success": None}
    if found.skills:
        data["skills"] = {
            suite: [
                (task, _rate(mine), float(np.mean([r.steps for r in mine])))
                for task in dict.fromkeys(r.task for r in records)
                for mine in [[r for r in records if r.task == task]]
            ]
            for suite, records in found.skills.items()
        }
        data["all"] = {suite: _rate(records) for suite, records in found.skills.items()}
    if found.harm:
        data["harm"] = harm_rows(bench, found.harm)
        data["ratio"], data["wrote"] = write_ratio(found.harm)
        data["differences"] = {arm: difference(found.harm[arm], found.harm["alone"]) for arm in MEMORIES}
        data["gate"] = load_weights(found.gate)[0] if found.gate is not None else None
    if found.success is not None:
        data |= {"success": job_rows(bench, found.success), "held": memory_rows(found.success)}
        data |= {"main": MAIN, "kit": found.success.kit}
    return render("vlamem.sim.bench.libero", "page.md.j2", **data)


def page_of(bench: LiberoBench, found: Found) -> Page:
    """The page of what was played."""
    figures: dict[str, Figure] = {}
    if found.skills:
        figures |= skill_figures(found)
    if found.harm:
        figures |= harm_figures(found.harm)
    if found.success is not None:
        figures |= success_figures(found.success)
    given = {"weights": find_policy(bench.policy).sha256, "options": _options(bench)}
    return Page("libero", text_of(bench, found), figures, bench.results, given)


def _options(bench: LiberoBench) -> dict[str, Any]:
    """The options as JSON values, for the page's fingerprint."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return {k: plain(v) for k, v in asdict(bench).items() if k != "preset"}
