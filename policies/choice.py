"""How much a frozen policy's own samples disagree: large where it must choose and nothing it sees tells what.

Before a choice, while the robot waits, the samples agree; once the hand is on its way it tells, and they agree again.
No signal of the task and no label is read.
"""

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Encoding
from vlamem.policies.protocol import FrozenPolicy

__all__ = ["disagreement"]


def disagreement(
    policy: FrozenPolicy, encoding: Encoding, rng: np.random.Generator, samples: int = 8
) -> Float[np.ndarray, "B"]:
    """Standard deviation over `samples` chunks of the sum of a chunk's translations, root of the sum over x, y and z.

    In units of the action's full range a control step; noise that changes sign from step to step averages out of the
    sum, a choice of direction does not. Raises ValueError for fewer than 2 samples.
    """
    if samples < 2:
        raise ValueError(f"samples is {samples}: expected 2 or more")
    rows, spec = len(encoding.z), policy.spec
    repeated = encoding.rows(np.repeat(np.arange(rows), samples))
    noise = rng.standard_normal((rows * samples, spec.horizon, spec.action.size), dtype=np.float32)
    moved = policy.sample(repeated, noise)[..., :3].sum(1).reshape(rows, samples, 3)
    spread: Float[np.ndarray, B] = np.sqrt(moved.var(axis=1).sum(-1)) / spec.horizon
    return spread
