"""How a recording pushes the hand of an expert away, so that it shows how to recover."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Disturbance:
    """How the recorder pushes the hand away.

    Attributes:
        share: of the episodes that are disturbed.
        every: mean ticks between two pushes.
        ticks: shortest and longest push.
        strength: largest offset added to each translation entry of the action.
    """

    share: float = 0.6
    every: float = 25.0
    ticks: tuple[int, int] = (3, 7)
    strength: float = 1.0


def bursts(rng: np.random.Generator, push: Disturbance, ticks: int) -> list[tuple[int, int, Float[np.ndarray, "3"]]]:
    """When the hand is pushed in an episode, first and last tick, and what is added to its translation."""
    if rng.random() >= push.share:
        return []
    found = []
    at = 0.0
    while at < ticks:
        at += 4 + rng.exponential(push.every)
        length = int(rng.integers(*push.ticks))
        offset = rng.uniform(-push.strength, push.strength, 3) * [1.0, 1.0, 0.7]
        found.append((int(at), int(at) + length, offset))
        at += length
    return found
