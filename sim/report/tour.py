"""The tour: runs that are played one after the other, each with a line of why, and what came of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlamem.sim.report.explain import explain_episode
from vlamem.sim.report.page import write_report
from vlamem.sim.report.runs import find_episode, read_runs
from vlamem.sim.results.compare import compare_runs, verdict
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.statistics import wilson95


@dataclass(frozen=True)
class Step:
    """A part of the tour.

    Attributes:
        text: what is played and why.
        out: folder of its run.
        against: folder of the same episodes without the memory, which it is compared with.
        states: initial states that a memory learns in, which come again after so many episodes.
    """

    text: str
    out: Path
    against: Path | None = None
    states: int | None = None


def tour(parts: Sequence[Step], play: Callable[[Step], None], report: Path, say: Callable[[str], None]) -> int:
    """Plays what is missing of the parts, says what came of each, and writes the report of the first two.

    Gives the bytes of the report. `play` plays a part, or what is missing of it. Raises what that raises.
    """
    for number, part in enumerate(parts, 1):
        say(f"\n{number}. {part.text}")
        play(part)
        for line in _outcome(part):
            say(f"   {line}")
    first, second = (part.out for part in parts[:2])
    alone, run = (read_runs([folder])[0] for folder in (first, second))
    changed = changed_by_memory(alone.records, run.records)
    record = changed or find_episode(run, None, None)
    trace = run.trace(record)
    if trace is not None:
        shown = f"episode {record.episode}, a {record.outcome}"
        if changed:
            shown += " where the policy alone fails"
        command = f"vlamem explain {second} --task {record.task} --episode {record.episode}"
        say(f"\nWhat memory did in {shown}, as '{command}' says it:")
        for line in explain_episode(trace):
            say(f"   {line}")
    size = write_report([first, second], report)
    say(f"\nThe report of both, with videos and timelines: {report} ({size / 1e6:.1f} MB). Open it in a browser.")
    return size


def changed_by_memory(alone: Sequence[EpisodeRecord], memory: Sequence[EpisodeRecord]) -> EpisodeRecord | None:
    """The first episode that fails without the memory and succeeds with it; None where there is none."""
    failed = {(record.task, record.episode) for record in alone if record.outcome == "failure"}
    return next((r for r in memory if r.outcome == "success" and (r.task, r.episode) in failed), None)


def _outcome(part: Step) -> Iterator[str]:
    """What a rollout came to; where states come again, in the first pass through them and after it."""
    (run,) = read_runs([part.out])
    yield _rate(run.records)
    if part.states is not None:
        first = [record for record in run.records if record.episode < part.states]
        later = [record for record in run.records if record.episode >= part.states]
        yield f"first time in each state: {_rate(first)}"
        if later:
            yield f"afterwards: {_rate(later)}"
    if part.against is not None:
        difference = compare_runs(part.out, part.against).total
        low, high = (100 * bound for bound in difference.ci95)
        points = f"{100 * difference.value:+.0f} points ({low:+.0f} to {high:+.0f})"
        yield f"minus the policy alone: {points} over {difference.n} pairs: {verdict(difference)}"


def _rate(records: Sequence[EpisodeRecord]) -> str:
    known = [record for record in records if record.outcome in ("success", "failure")]
    successes = sum(record.outcome == "success" for record in known)
    low, high = wilson95(successes, len(known))
    return f"{successes} of {len(known)} succeed ({100 * low:.0f} to {100 * high:.0f} %)"
