"""One arm of a bench: a rollout of its own, which goes on where it was stopped."""

from collections.abc import Callable
from typing import Any

from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout

Begin = Callable[[str, int, int], None]
"""Told the title of what begins, how many of its episodes are done already, and how many are planned."""
Progress = Callable[[EpisodeRecord], None]
"""Told every episode that has been played."""


class BenchStoppedError(RuntimeError):
    """The bench was interrupted; what was played is kept."""


def play_arm(config: RolloutConfig, title: str, where: str, begin: Begin, progress: Progress) -> dict[str, Any]:
    """Plays what is missing of an arm; its results.

    Raises BenchStoppedError, which says `where`, when interrupted, and what `rollout` raises.
    """
    end = rollout(config, lambda done, planned: begin(title, done, planned), progress)
    if end.results is None:
        raise BenchStoppedError(f"stopped in {where}: {end.done} of {end.planned} episodes are kept")
    return end.results
