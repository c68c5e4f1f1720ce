"""A frozen policy's own loss as what teaches a memory; see `vlamem.memory.train.teach`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vlamem.memory.train.demonstrations import Moments
from vlamem.policies.protocol import FrozenPolicy, Teachable

__all__ = ["PolicyLoss"]


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of a policy that is Teachable; a `vlamem.memory.train.teach.Loss`.

    Raises ValueError for another policy.
    """

    policy: FrozenPolicy

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Teachable):
            raise ValueError(
                f"policy '{self.policy.spec.name}' gives no gradient of its imitation loss: record its features and "
                "train its memory with 'vlamem train-gate --targets chunk'"
            )

    @property
    def injection(self) -> str:
        """Where the policy adds a residual."""
        assert isinstance(self.policy, Teachable)
        return self.policy.injection

    def __call__(
        self, moments: Moments, residual: Float[np.ndarray, "M C"], seed: int
    ) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "M C"]]:
        """Loss and gradient; an equal seed draws equal noise."""
        policy = self.policy
        assert isinstance(policy, Teachable)
        encoding = policy.unpack(moments.packed, moments.z, moments.context)
        return policy.imitation_gradient(encoding, moments.chunk, residual, np.random.default_rng(seed))
