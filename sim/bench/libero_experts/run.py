"""Which LIBERO tasks the scripted experts solve: the page docs/results/libero_experts.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.sim.bench.libero_experts.options import LiberoExpertsBench
from vlamem.sim.bench.play import play_arm
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import Figure
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.registry import load_suite

CLAIMED = 0.90
"""A task counts as covered from this success rate on."""


def run(options: LiberoExpertsBench, command: str, progress: Progress) -> Page:
    """Plays the expert in each suite (resumable), and gives the page.

    Raises BenchStoppedError when interrupted, and what `rollout` raises.
    """
    records: dict[str, list[EpisodeRecord]] = {}
    for suite in options.suites:
        config = config_of(options, suite)
        play_arm(config, suite, f"suite '{suite}'", progress)
        records[suite] = EpisodeLog(config.out / "episodes.jsonl").read()
    return page_of(records, options)


def config_of(options: LiberoExpertsBench, suite: str) -> RolloutConfig:
    """The rollout of one suite."""
    return RolloutConfig(
        suite=suite,
        tasks=("all",),
        policy="expert",
        memory=("none",),
        episodes=options.episodes,
        seed=0,
        out=options.out / suite,
        workers=options.workers,
        engine=options.engine,
        video=0,
        split="test",
        wording="training",
        size=84,
        render="fast",
        execute=8,
        parameters=(),
        watchdog_s=900.0,
        retry_errors=True,
    )


@dataclass(frozen=True)
class TaskRow:
    """What the expert did on one task.

    Attributes:
        task: its name.
        rate: over the episodes that did not end as errors.
        steps: mean over the successes.
        why: it was not played, where there is no such episode.
    """

    task: str
    rate: Rate
    steps: float
    why: str

    @property
    def covered(self) -> bool:
        """Whether the expert solves it."""
        return self.rate.n > 0 and self.rate.successes >= CLAIMED * self.rate.n


@dataclass(frozen=True)
class SuiteTable:
    """The tasks of one suite, and how many of its episodes ended as errors that no missing expert explains."""

    tasks: Sequence[TaskRow]
    errors: int

    @property
    def covered(self) -> int:
        """Tasks that the expert solves."""
        return sum(task.covered for task in self.tasks)


def table_of(suite: str, played: Sequence[EpisodeRecord]) -> SuiteTable:
    """The episodes of one suite by task."""
    rows = []
    for task in load_suite(suite).tasks:
        mine = [r for r in played if r.task == task]
        valid = [r for r in mine if r.outcome != "error"]
        rate = Rate.of([r.outcome == "success" for r in valid])
        steps = sum(r.steps for r in valid if r.outcome == "success") / max(1, rate.successes)
        why = next((r.error.partition(" (")[0] for r in mine if r.error), "not played")
        rows.append(TaskRow(task, rate, steps, why))
    errors = sum(r.outcome == "error" and "NoExpertError" not in (r.error or "") for r in played)
    return SuiteTable(rows, errors)


def page_of(records: Mapping[str, Sequence[EpisodeRecord]], options: LiberoExpertsBench) -> Page:
    """The page of the episodes of each suite."""
    tables = {suite: table_of(suite, played) for suite, played in records.items()}
    figures: dict[str, Figure] = {}
    for suite, table in tables.items():
        figures[f"{suite}_tasks_covered"] = Figure(table.covered)
        n = sum(task.rate.n for task in table.tasks)
        if n:
            figures[f"{suite}_expert_success"] = Figure.rate(sum(task.rate.successes for task in table.tasks), n)
    figures["expert_tasks_covered"] = Figure(sum(table.covered for table in tables.values()))
    text = render("vlamem.sim.bench.libero_experts", "page.md.j2", tables=tables, claimed=CLAIMED)
    return Page("libero_experts", text, figures, options.results)
