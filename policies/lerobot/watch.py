"""Observations on their way past lerobot: real-time chunking hands the policy one now and then, a memory wants all.

A robot that takes part publishes at every control step what its `get_observation` gives from then on; the policy takes
what has gathered up to the observation that it plans from. Both live in lerobot's one process.
"""

from collections import deque
from dataclasses import dataclass
from threading import Lock

import numpy as np
from jaxtyping import Float, UInt8

MOST = 512
"""Control steps that are kept when nobody takes them; older ones are dropped and counted."""


@dataclass(frozen=True)
class Watched:
    """One control step of a robot.

    Attributes:
        images: by camera.
        state: what the policy reads as observation.state.
    """

    images: dict[str, UInt8[np.ndarray, "H W 3"]]
    state: Float[np.ndarray, "P"]


class Watch:
    """A queue between a robot's thread and the policy's; nothing is kept until a policy has asked for it once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: deque[Watched] = deque(maxlen=MOST)
        self._wanted = False
        self.dropped = 0

    def publish(self, step: Watched) -> None:
        """Adds a control step."""
        with self._lock:
            if not self._wanted:
                return
            self.dropped += len(self._seen) == MOST
            self._seen.append(step)

    def take(self) -> list[Watched]:
        """The control steps since the last call, oldest first."""
        with self._lock:
            self._wanted = True
            seen = list(self._seen)
            self._seen.clear()
        return seen

    def give_back(self, steps: list[Watched]) -> None:
        """Puts the newest of the steps that were taken back in front of what has come since."""
        with self._lock:
            kept = [*steps, *self._seen]
            self.dropped += max(0, len(kept) - MOST)
            self._seen = deque(kept, maxlen=MOST)

    def clear(self) -> None:
        """Forgets what nobody took: a new episode begins."""
        with self._lock:
            self._seen.clear()
            self.dropped = 0


WATCH = Watch()
"""The one of this process."""
