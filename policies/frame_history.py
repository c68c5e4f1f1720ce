"""The observations before the present one, row by row, for a network that reads several at once."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from vlamem.core.observation import Observation

Frames = tuple[Observation, ...]


class FrameHistory:
    """The last observations of B rows; a row's first observation stands for those before its episode."""

    def __init__(self, rows: int, depth: int) -> None:
        """`depth` observations are read at once, the present one included."""
        self.depth = depth
        self._past: list[deque[Observation]] = [deque(maxlen=depth - 1) for _ in range(rows)]

    def clear(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Forgets the observations of the masked rows."""
        for row in np.flatnonzero(mask):
            self._past[row].clear()

    def frames(self, row: int) -> Frames:
        """The observations of a row that are kept, oldest first."""
        return tuple(self._past[row])

    def put_back(self, row: int, frames: Frames) -> None:
        """Makes `frames` what is kept of a row."""
        self._past[row].clear()
        self._past[row].extend(frames)

    def stacked(self, obs: Observation, rows: Int[np.ndarray, "R"]) -> Observation:
        """`obs` with an axis of time after the rows, the newest last; one that has it already is given back as it is.

        Raises ValueError for an axis of another length.
        """
        if self.depth == 1:
            return obs
        if obs.history is not None:
            if obs.history != self.depth:
                raise ValueError(f"{obs.history} observations a row, the policy reads {self.depth}: give one, or all")
            return obs
        parts = [self._of_row(obs.rows([i]), self._past[row]) for i, row in enumerate(rows)]
        return Observation.stack(parts)

    def push(self, obs: Observation, rows: Int[np.ndarray, "R"]) -> None:
        """Keeps an observation of `rows`, as it was given to `stacked`."""
        if self.depth == 1:
            return
        for i, row in enumerate(rows):
            one = obs.rows([i])  # a copy: who gave it may write the next picture into the same memory
            self._past[row].extend(one.moments[1:] if obs.history is not None else [one])

    def _of_row(self, now: Observation, past: Sequence[Observation]) -> Observation:
        first = past[0] if past else now
        seen = [*[first] * (self.depth - 1 - len(past)), *past, now]
        return Observation(
            {name: np.stack([o.images[name] for o in seen], 1) for name in now.images},
            np.stack([o.proprioception for o in seen], 1),
            now.instruction,
        )
