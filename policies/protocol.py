"""What a frozen policy is, for everything else in the project."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import PolicySpec


@runtime_checkable
class FrozenPolicy(Protocol):
    """A trained policy whose weights no one touches. `vlamem.testing.check_policy` checks one against this contract."""

    @property
    def spec(self) -> PolicySpec:
        """Sizes and conventions."""
        ...

    @property
    def history(self) -> int:
        """Observations that the network reads at once, the present one included; 1 for most."""
        ...

    @property
    def lowest_start(self) -> float:
        """Flow time, 0 to 1, below which a proposed chunk is taken as it is; see `vlamem.policies.steering`."""
        ...

    def encode(self, obs: Observation) -> Encoding:
        """Feature, retrieval key and conditioning of a batch of observations; cheap enough for every control step."""
        ...

    def sample(
        self, encoding: Encoding, noise: Float[np.ndarray, "B H A"], proposal: Proposal | None = None
    ) -> Float[np.ndarray, "B H A"]:
        """The action chunk that the policy makes from `noise`, in normalised action space; deterministic.

        Rows whose proposal abstains, and all rows when `proposal` is None, are what the bare policy gives.
        """
        ...

    def context_of(self, instruction: list[str]) -> Float[np.ndarray, "B C"]:
        """The policy's conditioning vector for each sentence."""
        ...
