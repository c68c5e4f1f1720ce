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
from vlamem.sim.report.tour import steps, tour
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout


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
        tour(parts, _play, options.out / "report.html", lambda line: print(line, flush=True))
    except _StoppedError as stopped:
        return int(stopped.args[0])
    return 0


def _play(config: RolloutConfig) -> None:
    """Plays what is missing of a rollout, with a bar. Raises _StoppedError with the exit status."""
    with tqdm(unit="episode", leave=False, dynamic_ncols=True) as bar:

        def begin(done: int, planned: int) -> None:
            bar.reset(planned)
            bar.update(done)

        def progress(record: EpisodeRecord) -> None:
            bar.update()

        end = rollout(config, begin, progress)
    if end.results is None:
        raise _StoppedError(128 + end.signal if end.signal else 1)
