"""A tour of some minutes on the shipped weights: a robot that forgets, one that remembers, one that learns.

Plays a memory task with the frozen policy alone and with AURA-Mem, then a job that comes again and again with and
without a success memory, says in a line what came of each, and leaves a report. Stopped, it goes on with the same
command.

Example: vlamem tour --out runs/tour

Exit status: 0 done, 2 not possible as asked, 130 or 143 stopped.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from vlamem.scripts.checks import within
from vlamem.scripts.config import parse, preset
from vlamem.sim.report.tour import Step, tour
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout

STATES = 5
"""Initial states that come again and again for the success memory."""
SHIFT = "shift=actuator:0.3"
"""The arm moves less far than the policy commands, which it never met in training."""


@dataclass(frozen=True)
class Options:
    """How long the tour is, and where it is kept."""

    out: Path = Path("runs/tour")
    """Folder of its runs and of report.html."""
    episodes: int = 6
    """Episodes of the memory task."""
    trials: int = 30
    """Trials of the job that comes again and again."""
    workers: int = 2
    """Processes; a memory that learns is played by one."""


class _StoppedError(Exception):
    """A rollout was stopped."""


def main(arguments: list[str]) -> int:
    """`vlamem tour`."""
    options = parse(Options, "tour", arguments, __doc__)
    for name in ("episodes", "trials"):
        within(f"--{name}", getattr(options, name), 1)
    within("--workers", options.workers, 0)
    base = replace(preset(RolloutConfig, "rollout"), workers=options.workers)
    try:
        parts = steps(base, options.out, options.episodes, options.trials)
        configs = {step.out: config for step, config in parts}
        report = options.out / "report.html"
        tour([step for step, _ in parts], lambda step: _play(configs[step.out]), report, _say)
    except _StoppedError as stopped:
        return int(stopped.args[0])
    return 0


def steps(base: RolloutConfig, out: Path, episodes: int, trials: int) -> list[tuple[Step, RolloutConfig]]:
    """The parts of the tour with their rollouts; `base` gives what these have in common."""
    recall = replace(base, tasks=("recall_colour",), episodes=episodes, video=2)
    press = replace(base, tasks=("press",), episodes=trials, video=0, states=STATES, order=1, parameters=(SHIFT,))
    store = f"success:{out / 'memory.db'}"
    alone, aura, press_alone, press_success = (out / name for name in ("alone", "aura", "press-alone", "press-success"))
    return [
        (
            Step(
                "A lamp shows a colour and goes dark; later the block of that colour has to be touched. The frozen "
                "policy alone sees no lamp by then, and guesses.",
                alone,
            ),
            replace(recall, memory=("none",), out=alone),
        ),
        (
            Step(
                "The same episodes with AURA-Mem: 4,224 bytes, written when its gate opens, here when the lamp is lit.",
                aura,
                alone,
            ),
            replace(recall, memory=("aura",), out=aura),
        ),
        (
            Step(
                f"Another job: a button is pressed by an arm that moves less far than commanded, {trials} times in "
                f"{STATES} initial states. The policy alone makes the same mistakes every time.",
                press_alone,
            ),
            replace(press, memory=("none",), out=press_alone),
        ),
        (
            Step(
                "The same trials with a success memory, empty at first: what succeeded steers the policy when a state "
                "comes again.",
                press_success,
                press_alone,
                STATES,
            ),
            replace(press, memory=(store,), workers=1, out=press_success),
        ),
    ]


def _say(line: str) -> None:
    print(line, flush=True)


def _play(config: RolloutConfig) -> None:
    """Plays what is missing of a rollout, with a bar. Raises _StoppedError with the exit status."""
    with tqdm(unit="episode", leave=False, dynamic_ncols=True, disable=None) as bar:  # quiet in a log

        def begin(done: int, planned: int) -> None:
            bar.reset(planned)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        end = rollout(config, begin, progress)
    if end.results is None:
        raise _StoppedError(128 + end.signal if end.signal else 1)
