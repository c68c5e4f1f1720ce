"""Where a frozen policy chooses: ticks at which its samples disagree, and flow times at which a chunk is undecided.

Before a choice, while the robot waits, the samples agree; once the hand is on its way it tells, and they agree again.
No signal of the task and no label is read.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Encoding
from vlamem.core.spec import ActionSpec
from vlamem.policies.protocol import FrozenPolicy

__all__ = ["DrawsChunks", "choice_times", "contradiction", "disagreement"]


@runtime_checkable
class DrawsChunks(Protocol):
    """A frozen policy that draws many chunks at once, also where the noise of `sample` is not all that it draws."""

    def draw(self, encoding: Encoding, samples: int, rng: np.random.Generator) -> Float[np.ndarray, "B S H A"]:
        """`samples` chunks of the bare policy for each row."""
        ...


def disagreement(
    policy: FrozenPolicy, encoding: Encoding, rng: np.random.Generator, samples: int = 8
) -> Float[np.ndarray, "B"]:
    """Standard deviation over `samples` chunks of the sum of a chunk's translations, root of the sum over x, y and z;
    over all entries of actions that have no translation.

    In units of the action's full range a control step; noise that changes sign from step to step averages out of the
    sum, a choice of direction does not. Raises ValueError for fewer than 2 samples.
    """
    moved = _sums(policy, encoding, rng, samples)
    spread: Float[np.ndarray, B] = np.sqrt(moved.var(axis=1).sum(-1)) / policy.spec.horizon
    return spread


def contradiction(
    policy: FrozenPolicy,
    encoding: Encoding,
    chunk: Float[np.ndarray, "B H A"],
    rng: np.random.Generator,
    samples: int = 8,
) -> Float[np.ndarray, "B"]:
    """How far what was done is from the mean of `samples` chunks, in the units and by the entries of `disagreement`.

    Raises ValueError for fewer than 2 samples.
    """
    mean = _sums(policy, encoding, rng, samples).mean(axis=1)
    did = chunk[..., _moving(policy.spec.action)].sum(1)
    far: Float[np.ndarray, B] = np.sqrt(np.square(did - mean).sum(-1)) / policy.spec.horizon
    return far


def _sums(
    policy: FrozenPolicy, encoding: Encoding, rng: np.random.Generator, samples: int
) -> Float[np.ndarray, "B S M"]:
    """The sums over each sampled chunk of what `_moving` names."""
    if samples < 2:
        raise ValueError(f"samples is {samples}: expected 2 or more")
    rows, spec = len(encoding.z), policy.spec
    if isinstance(policy, DrawsChunks):
        drawn = policy.draw(encoding, samples, rng)
    else:
        repeated = encoding.rows(np.repeat(np.arange(rows), samples))
        noise = rng.standard_normal((rows * samples, spec.horizon, spec.action.size), dtype=np.float32)
        drawn = policy.sample(repeated, noise).reshape(rows, samples, spec.horizon, spec.action.size)
    moved: Float[np.ndarray, "B S M"] = drawn[..., _moving(spec.action)].sum(2)
    return moved


def _moving(action: ActionSpec) -> list[int]:
    """Entries of an action that are translations, or all of them."""
    first = 0
    found: list[int] = []
    for part in action.components:
        if part.form == "xyz":
            found.extend(range(first, first + part.size))
        first += part.size
    return found or list(range(first))


def choice_times(rows: int, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "B D"]:
    """Flow times t (1 noise, 0 data) at which the loss of a flow-matching policy is asked for, rising, as often as t.

    One of each row in each of `draws` parts of equal probability. What a chunk will do is decided while it is still
    noise: further down the noisy chunk itself tells which of its modes was demonstrated, and the loss hardly depends on
    what the policy is told. Of the times near data some are kept: what is proposed there must not spoil a grasp.
    """
    share = (np.arange(draws) + rng.random((rows, draws))) / draws
    times: Float[np.ndarray, "B D"] = np.sqrt(share).astype(np.float32)
    return times
