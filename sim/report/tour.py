"""The tour: a task that needs a memory, played without one and with AURA-Mem, and a success memory that fills."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlamem.sim.report.explain import explain_episode
from vlamem.sim.report.page import write_report
from vlamem.sim.report.runs import find_episode, read_runs
from vlamem.sim.results.compare import compare_runs, verdict
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.results.statistics import wilson95
from vlamem.sim.rollout.config import RolloutConfig

STATES = 5
"""Initial states that come again and again for the success memory."""
SHIFT = "shift=actuator:0.3"
"""The arm moves less far than the policy commands, which it never met in training."""


@dataclass(frozen=True)
class Step:
    """A part of the tour.

    Attributes:
        text: what is played and why, a line.
        config: of the rollout.
        against: folder of the same episodes without the memory, which it is compared with.
    """

    text: str
    config: RolloutConfig
    against: Path | None = None


def steps(base: RolloutConfig, out: Path, episodes: int, trials: int) -> list[Step]:
    """The rollouts of the tour; `base` gives what they have in common."""
    recall = replace(base, tasks=("recall_colour",), episodes=episodes, video=2)
    press = replace(base, tasks=("press",), episodes=trials, video=0, states=STATES, order=1, parameters=(SHIFT,))
    store = f"success:{out / 'memory.db'}"
    return [
        Step(
            "A lamp shows a colour and goes dark; later the block of that colour has to be touched. The frozen policy "
            "alone sees no lamp by then, and guesses.",
            replace(recall, memory=("none",), out=out / "alone"),
        ),
        Step(
            "The same episodes with AURA-Mem: 4,224 bytes, written when its gate opens, here when the lamp is lit.",
            replace(recall, memory=("aura",), out=out / "aura"),
            out / "alone",
        ),
        Step(
            f"Another job: a button is pressed by an arm that moves less far than commanded, {trials} times in "
            f"{STATES} initial states. The policy alone makes the same mistakes every time.",
            replace(press, memory=("none",), out=out / "press-alone"),
        ),
        Step(
            "The same trials with a success memory, empty at first: what succeeded steers the policy when a state "
            "comes again.",
            replace(press, memory=(store,), workers=1, out=out / "press-success"),
            out / "press-alone",
        ),
    ]


def tour(parts: Sequence[Step], play: Callable[[RolloutConfig], Any], report: Path, say: Callable[[str], None]) -> int:
    """Plays what is missing of the parts, says what came of each, and writes the report of the first two.

    Gives the bytes of the report. `play` plays a rollout, or what is missing of it. Raises what these raise.
    """
    for number, part in enumerate(parts, 1):
        say(f"\n{number}. {part.text}")
        play(part.config)
        for line in _outcome(part):
            say(f"   {line}")
    first, second = (part.config.out for part in parts[:2])
    run = read_runs([second])[0]
    record = find_episode(run, None, None)
    trace = run.trace(record)
    if trace is not None:
        shown = f"episode {record.episode}, a {record.outcome}"
        say(f"\n5. What AURA-Mem did in {shown}, as 'vlamem explain {second}' says it:")
        for line in explain_episode(trace):
            say(f"   {line}")
    size = write_report([first, second], report)
    say(f"\n6. The report of both, with videos and timelines: {report} ({size / 1e6:.1f} MB). Open it in a browser.")
    return size


def _outcome(part: Step) -> Iterator[str]:
    """What a rollout came to; where states come again, in the first pass through them and after it."""
    (run,) = read_runs([part.config.out])
    yield _rate(run.records)
    if part.config.learns:
        first = [record for record in run.records if record.episode < STATES]
        later = [record for record in run.records if record.episode >= STATES]
        yield f"first time in each state: {_rate(first)}"
        if later:
            yield f"afterwards: {_rate(later)}"
    if part.against is not None:
        difference = compare_runs(part.config.out, part.against).total
        low, high = (100 * bound for bound in difference.ci95)
        points = f"{100 * difference.value:+.0f} points ({low:+.0f} to {high:+.0f})"
        yield f"minus the policy alone: {points} over {difference.n} pairs: {verdict(difference)}"


def _rate(records: Sequence[EpisodeRecord]) -> str:
    known = [record for record in records if record.outcome in ("success", "failure")]
    successes = sum(record.outcome == "success" for record in known)
    low, high = wilson95(successes, len(known))
    return f"{successes} of {len(known)} succeed ({100 * low:.0f} to {100 * high:.0f} %)"
