"""From chunks to commands: which action belongs to which moment, and how one chunk gives way to the next."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Planned:
    """The command of a moment.

    Attributes:
        command: [A].
        episode: of the observation behind it.
        step: at which that observation was taken.
        index: of the action in its chunk.
    """

    command: Array
    episode: int
    step: int
    index: int


class Timeline:
    """Actions by policy step. A chunk planned at step s has its first action there, however late it arrives.

    What is past when it arrives is never executed. Over the next `blend` steps the old chunk's actions turn into the
    new one's; entries that may not be mixed (a gripper) change at once, after the first of them.

    Args:
        blended: [A], entries that may be mixed.
        held: [A], entries that keep their value within a step; the others are interpolated between steps.
        blend: steps of the hand-over; 0 changes at once.
    """

    def __init__(self, blended: NDArray[np.bool_], held: NDArray[np.bool_], blend: int) -> None:
        if blend < 0:
            raise ValueError(f"blend {blend} is negative: it is a number of steps")
        self._blended, self._held, self._blend = blended, held, blend
        self._actions: dict[int, Planned] = {}
        self.episode = 0
        self.newest = self.after = -1

    def clear(self, episode: int, after: int = -1) -> None:
        """Forgets every action; from now on only chunks of `episode` planned after step `after` are taken."""
        self._actions.clear()
        self.episode, self.newest, self.after = episode, -1, after

    def take(self, chunk: Array, episode: int, step: int, now: float) -> bool:
        """A chunk [H, A] planned at `step` arrives at step `now` (a fraction is the way to the next).

        False when it is of another episode, older than the one at hand or than `clear` allows, or all of it is past.
        """
        first = math.floor(now)
        if episode != self.episode or step <= max(self.newest, self.after) or step + len(chunk) <= first:
            return False
        fresh: dict[int, Planned] = {}
        for k in range(max(step, first), step + len(chunk)):
            action = np.array(chunk[k - step], np.float64)
            old = self._actions.get(k)
            share = (k - first + 1) / (self._blend + 1)
            if old is not None and share < 1:
                action = np.where(self._blended, (1 - share) * old.command + share * action, action)
            fresh[k] = Planned(action, episode, step, k - step)
        self._actions, self.newest = fresh, step
        return True

    def left(self, now: float) -> int:
        """Steps, from the one at hand on, that have an action."""
        return max(0, max(self._actions, default=-1) - math.floor(now) + 1)

    def at(self, now: float) -> Planned | None:
        """The command of this moment; None where no action is known."""
        k = math.floor(now)
        here = self._actions.get(k)
        if here is None:
            return None
        after = self._actions.get(k + 1)
        if after is None or self._held.all():
            return here
        way = now - k
        command = np.where(self._held, here.command, (1 - way) * here.command + way * after.command)
        return Planned(command, here.episode, here.step, here.index)
