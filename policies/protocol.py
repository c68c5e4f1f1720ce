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


@runtime_checkable
class Teachable(Protocol):
    """A frozen policy that says how a residual on its conditioning changes its own imitation loss; optional.

    A memory is taught by that gradient from demonstrations alone; the weights of the policy get none.
    """

    @property
    def injection(self) -> str:
        """Name of the point at which the residual is added: that of `sample`'s proposed context."""
        ...

    @property
    def packed_size(self) -> int:
        """N, numbers that `pack` makes of a row."""
        ...

    def pack(self, encoding: Encoding) -> Float[np.ndarray, "B N"]:
        """What `sample` reads of an observation beside z and the instruction, as float16."""
        ...

    def unpack(
        self, packed: Float[np.ndarray, "B N"], z: Float[np.ndarray, "B D"], context: Float[np.ndarray, "B C"]
    ) -> Encoding:
        """The encoding of packed rows, with z and the conditioning vector of a sentence. Raises ValueError for rows of
        another size."""
        ...

    def imitation_gradient(
        self,
        encoding: Encoding,
        chunk: Float[np.ndarray, "B H A"],
        residual: Float[np.ndarray, "B C"],
        rng: np.random.Generator,
    ) -> tuple[Float[np.ndarray, "B"], Float[np.ndarray, "B C"]]:
        """Imitation loss of each demonstrated chunk, in normalised action space, under a residual, and its gradient by
        the residual.

        Noise is drawn from `rng`: an equal generator gives equal noise, so that two residuals can be compared. With
        residual 0 it is the loss of the bare policy. Raises ValueError for wrong shapes.
        """
        ...
