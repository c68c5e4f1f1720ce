"""What a frozen policy is, for everything else in the project."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from vlamem.core.proposal import Proposal
from vlamem.core.spec import PolicySpec


@dataclass(frozen=True)
class Observation:
    """A batch of observations, one row per environment.

    Attributes:
        images: by camera name, RGB, upright.
        proprioception: end-effector position [m] (3), orientation as a unit quaternion w, x, y, z (4), gripper
            opening [m] (1) for the tabletop suite; other suites say theirs in their spec.
        instruction: one sentence per row.
    """

    images: dict[str, UInt8[np.ndarray, "B height width 3"]]
    proprioception: Float[np.ndarray, "B P"]
    instruction: tuple[str, ...]


@dataclass(frozen=True)
class Encoding:
    """What `encode` makes of an observation.

    Attributes:
        z: [B, D], what a memory reads at every control step.
        key: [B, K], unit length, for retrieval.
        context: opaque to all but the policy that made it; taken by its `sample`.
    """

    z: Float[np.ndarray, "B D"]
    key: Float[np.ndarray, "B K"]
    context: Any


class FrozenPolicy(Protocol):
    """A trained policy whose weights no one touches."""

    spec: PolicySpec

    def encode(self, obs: Observation) -> Encoding:
        """Feature, retrieval key and conditioning of a batch of observations; cheap enough for every control step."""
        ...

    def sample(
        self, encoding: Encoding, noise: Float[np.ndarray, "B H A"], proposal: Proposal | None = None
    ) -> Float[np.ndarray, "B H A"]:
        """The action chunk that the policy makes from `noise`, in normalised action space; deterministic.

        Rows whose proposal has confidence 0, and all rows when `proposal` is None, are what the bare policy gives.
        """
        ...

    def context_of(self, instruction: list[str]) -> Float[np.ndarray, "B C"]:
        """The policy's conditioning vector for each sentence."""
        ...
