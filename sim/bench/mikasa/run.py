"""MIKASA-Robo's verdict beside the strict one: the page docs/results/mikasa.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlamem.core.bench import Page, Progress
from vlamem.core.pages import render
from vlamem.sim.bench.mikasa.options import MikasaBench
from vlamem.sim.bench.play import play_arm
from vlamem.sim.bench.rate import Rate
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import Figure
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.suites.mikasa.catalogue import CANONICAL, MikasaTask
from vlamem.sim.suites.mikasa.experts import ACTORS, check_actor, plays
from vlamem.sim.suites.protocol import SuiteError
from vlamem.sim.suites.registry import load_suite, select_tasks

TITLES = {
    "expert": "knows the answer",
    "guess": "guesses after the wait",
    "touch-cue": "touches the cue while it shows",
    "touch-all": "touches one object after the other",
}


def run(options: MikasaBench, command: str, progress: Progress) -> Page:
    """Plays each actor on each task that it can (resumable), and gives the page of all runs in the folder.

    Raises SuiteError for an actor or task that does not exist, BenchStoppedError when interrupted, and what `rollout`
    raises.
    """
    for actor in options.actors:
        check_actor(CANONICAL["RememberColor3-Long-VLA-v0"], actor)  # which everyone plays: the name alone is checked
    suite = load_suite("mikasa")
    tasks = [CANONICAL[name] for name in select_tasks(suite, options.tasks)]
    jobs = [(actor, task) for actor in options.actors for task in tasks if plays(task, actor)]
    if not jobs:
        raise SuiteError(f"none of {list(options.actors)} plays any of {[t.name for t in tasks]}: see docs/mikasa.md")
    for actor, task in jobs:
        play_arm(config_of(options, actor, task.name), f"{actor}: {task.name}", f"'{actor}' of '{task.name}'", progress)
    return page_of(found_in(options.out), options.results)


def config_of(options: MikasaBench, actor: str, task: str) -> RolloutConfig:
    """The rollout of one actor on one task."""
    return RolloutConfig(
        suite="mikasa",
        tasks=(task,),
        policy="expert",
        memory=("none",),
        episodes=options.episodes,
        seed=0,
        out=options.out / actor / task,
        workers=0,
        video=0,
        split="test",
        wording="training",
        size=128,
        render="fast",
        execute=1,
        parameters=(f"actor={actor}",),
        watchdog_s=900.0,
        retry_errors=True,
        trace=False,
    )


@dataclass(frozen=True)
class Line:
    """What one actor did on one task.

    Attributes:
        task, actor: which.
        official: rate by the benchmark's verdict.
        strict: rate by the strict one; None where the task has none.
        steps: mean over the successes by the benchmark's verdict.
    """

    task: MikasaTask
    actor: str
    official: Rate
    strict: Rate | None
    steps: float

    @classmethod
    def of(cls, task: MikasaTask, actor: str, records: Sequence[EpisodeRecord]) -> "Line":
        """From the episodes that did not end as errors."""
        valid = [r for r in records if r.outcome != "error"]
        official = Rate.of([r.outcome == "success" for r in valid])
        judged = [bool(r.strict) for r in valid if r.strict is not None]
        steps = sum(r.steps for r in valid if r.outcome == "success") / max(1, official.successes)
        return cls(task, actor, official, Rate.of(judged) if judged else None, steps)


def found_in(folder: Path) -> list[Line]:
    """Every run of the folder, in the order of actors and tasks."""
    lines = []
    for actor in ACTORS:
        for name, task in CANONICAL.items():
            log = folder / actor / name / "episodes.jsonl"
            if log.is_file():
                lines.append(Line.of(task, actor, EpisodeLog(log).read()))
    return lines


def page_of(lines: Sequence[Line], results: Path) -> Page:
    """The page of some runs."""
    by_actor = {actor: [line for line in lines if line.actor == actor and line.official.n] for actor in ACTORS}
    figures: dict[str, Figure] = {}
    for actor, mine in by_actor.items():
        if mine:
            key = actor.replace("-", "_")
            figures[f"{key}_tasks"] = Figure(len(mine))
            n = sum(line.official.n for line in mine)
            figures[f"{key}_success_official"] = Figure.rate(sum(line.official.successes for line in mine), n)
            judged = [line.strict for line in mine if line.strict is not None]
            if judged:
                figures[f"{key}_success_strict"] = Figure.rate(
                    sum(rate.successes for rate in judged), sum(rate.n for rate in judged)
                )
    text = render("vlamem.sim.bench.mikasa", "page.md.j2", actors=by_actor, titles=TITLES)
    return Page("mikasa", text, figures, results)
