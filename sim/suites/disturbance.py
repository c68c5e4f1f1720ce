"""How a recording pushes the hand of an expert away, so that it shows how to recover."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vlamem.core.spec import ActionSpec

Burst = tuple[int, int, Float[np.ndarray, "3"]]
"""First tick of a push, the one after its last, and what is added to the translation."""


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


def bursts(rng: np.random.Generator, push: Disturbance, ticks: int) -> list[Burst]:
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


def translations(spec: ActionSpec) -> list[int]:
    """Entries of an action that move the hand by themselves, the only ones that can be pushed; three at most."""
    kinds = [c for c in spec.components for _ in range(c.size)]
    return [i for i, c in enumerate(kinds) if c.form == "xyz" and c.mode == "delta"][:3]


def pushed(
    action: Float[np.ndarray, "A"], spec: ActionSpec, pushes: Sequence[Burst], now: int
) -> Float[np.ndarray, "A"]:
    """An action as it is executed at tick `now`: with the push of this moment, within the range of its spec.

    A push is in halves of that range, which are 1 where an entry goes from -1 to 1.
    """
    command, low, high = np.array(action), np.array(spec.low), np.array(spec.high)
    for first, last, offset in pushes:
        if first <= now < last:
            entries = translations(spec)
            command[entries] += ((high - low) / 2)[entries] * offset[: len(entries)]
    clipped: Float[np.ndarray, A] = np.clip(command, low, high).astype(command.dtype)
    return clipped
