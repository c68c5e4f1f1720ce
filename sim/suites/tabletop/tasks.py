"""The tasks by name."""

from collections.abc import Callable
from typing import Any

from vlamem.sim.suites.tabletop.memory_tasks import LatestWins, Patrol, RecallColour, Sequence
from vlamem.sim.suites.tabletop.memory_tasks_objects import CountPress, PutBack, ShellGame
from vlamem.sim.suites.tabletop.skills import PlaceInBowl, PlaceOnPad, Press, Push, Raise, Touch
from vlamem.sim.suites.tabletop.task import Task

SKILLS: tuple[type[Task], ...] = (Touch, Push, PlaceInBowl, PlaceOnPad, Press, Raise)
MEMORY: tuple[type[Task], ...] = (RecallColour, LatestWins, Sequence, ShellGame, CountPress, PutBack, Patrol)
TASKS: dict[str, Callable[..., Task]] = {t.name: t for t in (*SKILLS, *MEMORY)}
ORACLE_SUFFIX = "_told"
"""A memory task's name with this suffix is its oracle variant: the sentence tells the answer."""


def make_task(name: str, parameters: dict[str, Any]) -> tuple[Task, bool]:
    """The task called `name`, and whether it is an oracle variant; raises KeyError or TypeError."""
    oracle = name.endswith(ORACLE_SUFFIX) and name not in TASKS
    return TASKS[name.removesuffix(ORACLE_SUFFIX) if oracle else name](**parameters), oracle
