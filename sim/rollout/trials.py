"""Which episodes a run has: the initial state of each, its noise, and which of them are played together."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlamem.core.seeding import stream
from vlamem.sim.results.episodes import EpisodeRecord
from vlamem.sim.rollout.config import PlanError, RolloutConfig

Job = tuple[str, tuple[int, ...]]
"""A task, and those of its episodes that are played side by side."""


class InitialState(NamedTuple):
    """The initial state of an episode, and how often it was begun in before."""

    number: int
    visit: int

    def name(self, split: str) -> str:
        """Equal in runs that can be paired, and unique in a task of a run."""
        again = f"#{self.visit}" if self.visit else ""
        return f"{split}/{self.number}{again}"


def initial_state(config: RolloutConfig, episode: int) -> InitialState:
    """Of an episode of a run."""
    if config.order or config.states:
        return state_in_order(config.order, config.states or config.episodes, episode)
    return InitialState(episode, 0)


def state_in_order(order: int, states: int, episode: int) -> InitialState:
    """Of an episode that goes through `states` again and again: as they are numbered in order 0, else a permutation of
    all, then another, and so on; a function of order, number of states and visit.
    """
    visit, place = divmod(episode, states)
    if not order:
        return InitialState(place, visit)
    # the first order was number 0 in version 0.1
    return InitialState(int(stream(order - 1, "order", visit).permutation(states)[place]), visit)


def noise_of(config: RolloutConfig, task: str, episode: int) -> np.random.Generator:
    """The stream of the policy's noise in an episode, a function of (seed, task, order, episode)."""
    if not config.order:
        return stream(config.seed, "noise", task, episode)
    return stream(config.seed, "noise", task, config.order - 1, episode)


def groups(config: RolloutConfig, tasks: Sequence[str]) -> list[Job]:
    """All episodes of the run, those together that are played side by side; the last of a task may be fewer."""
    firsts = range(0, config.episodes, config.batch)
    return [
        (task, tuple(range(first, min(first + config.batch, config.episodes)))) for task in tasks for first in firsts
    ]


def missing(config: RolloutConfig, tasks: Sequence[str], on_disk: dict[tuple[str, int], EpisodeRecord]) -> list[Job]:
    """The groups of which an episode is not on disk.

    Raises PlanError for a memory that learns when they are not the last of the run: an episode that others came before
    would not see what it would have seen.
    """
    planned = groups(config, tasks)
    left = [job for job in planned if any((job[0], episode) not in on_disk for episode in job[1])]
    if config.learns and left != planned[len(planned) - len(left) :]:
        task, episodes = left[0]
        raise PlanError(
            f"{task} {episodes[0]} is missing in {config.out} and later episodes are there, which a memory has learned "
            "from: it cannot be played now as it would have been; choose another --out and another memory file"
        )
    return left


class JobQueue:
    """Jobs still to be given out, task by task, so that a worker changes its environments rarely."""

    def __init__(self, jobs: Sequence[Job], in_order: bool = False) -> None:
        """With `in_order` they are given out as they stand."""
        self._in_order = in_order
        self._left: dict[str, deque[tuple[int, ...]]] = {}
        for task, episodes in jobs:
            self._left.setdefault(task, deque()).append(episodes)

    def __bool__(self) -> bool:
        return bool(self._left)

    def take(self, task: str, busy_with: set[str]) -> Job:
        """The next job of `task`, else of a task that no one is on, else of the one with most left."""
        if self._in_order:
            task = next(iter(self._left))
        elif task not in self._left:
            task = max(self._left, key=lambda t: (t not in busy_with, len(self._left[t])))
        episodes = self._left[task].popleft()
        if not self._left[task]:
            del self._left[task]
        return task, episodes

    def put_back(self, job: Job) -> None:
        """A job that has to be played again is the next one of its task."""
        self._left.setdefault(job[0], deque()).appendleft(job[1])


def identity_of(run: str, task: str, episode: int) -> str:
    """What an episode is called in a memory that stores it."""
    return f"{run}/{task}/{episode}"
