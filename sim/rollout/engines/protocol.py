"""What an engine is, and which there are."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from typing import Protocol, runtime_checkable

from vlamem.core.registry import Registry
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import PlanError, RolloutConfig
from vlamem.sim.rollout.trials import Job

GUARD = "put what it does under if __name__ == '__main__':, or play with workers=0"
"""What a script has to do whose worker processes run it again."""


class RunRefusedError(ValueError):
    """A worker found that the run cannot be done; the message is its."""


@runtime_checkable
class Engine(Protocol):
    """Plays jobs of a run, somewhere, each by a Player of one thread of arithmetic."""

    def play(
        self, config: RolloutConfig, jobs: Sequence[Job], stopped: Callable[[], bool]
    ) -> Generator[list[EpisodeRecord]]:
        """Yields the records of each job, in the order in which jobs end, until all are done or `stopped()`.

        The jobs of a run that learns are played in the order given, each after the records of the one before were
        taken. Raises RunRefusedError when policy and environment do not fit or workers cannot start,
        ModuleNotFoundError without the simulator, DiskFullError when the disk is full.
        """
        ...


ENGINES: Registry[Engine] = Registry(
    "engine",
    {
        "inline": "vlamem.sim.rollout.engines.inline:ENGINE",
        "processes": "vlamem.sim.rollout.engines.processes:ENGINE",
        "ray": "vlamem.sim.rollout.engines.ray:ENGINE",
    },
    PlanError,
)
"""Engines by name; one of your own is one line, `register(name, "package.module:ENGINE")`."""
register = ENGINES.register


def engine_of(config: RolloutConfig) -> Engine:
    """The engine that a run asks for. Raises PlanError for an unknown one."""
    return ENGINES.get(config.engine or ("processes" if config.workers else "inline"))


def check_not_starting() -> None:
    """Raises RunRefusedError in a worker process that is still being started, and runs its script for that."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself finds out
        raise RunRefusedError(f"a worker process runs its script again and would play in workers too: {GUARD}")
