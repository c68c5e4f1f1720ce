"""One arm of a bench: a rollout of its own, which goes on where it was stopped."""

from typing import Any

from vlamem.core.bench import BenchStoppedError, Progress
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.run import rollout


def play_arm(config: RolloutConfig, title: str, where: str, progress: Progress) -> dict[str, Any]:
    """Plays what is missing of an arm; its results.

    Raises BenchStoppedError, which says `where`, when interrupted, and what `rollout` raises.
    """
    end = rollout(config, lambda done, planned: progress.begin(title, done, planned), lambda record: progress.step())
    if end.results is None:
        kept = f"{end.done} of {end.planned} episodes are kept"
        raise BenchStoppedError(f"stopped in {where}: {kept}; the same command continues")
    return end.results
