"""A frozen lerobot policy's own imitation loss under a residual on its conditioning, and its gradient by it.

Also samples of it from one look at an observation, whose disagreement says where it must choose.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from vlamem.core.observation import Encoding
from vlamem.core.spec import PolicySpec
from vlamem.policies.lerobot.bridge import Bridge
from vlamem.policies.lerobot.encoding import Inputs
from vlamem.policies.lerobot.families import Family, Request
from vlamem.policies.lerobot.injection import Point, injected
from vlamem.policies.lerobot.packing import Packing, recorded, replayed
from vlamem.policies.protocol import FrozenPolicy

_ROWS = 64
"""Chunks whose loss is computed at once: a report asks for that of hundreds."""


def seen_by(family: Family, packing: Packing, inputs: Inputs) -> Inputs:
    """`inputs` with what the network's vision makes of them: the pass goes no further than that."""
    if inputs.seen:
        return inputs
    rows = len(inputs.observation)
    noise = torch.zeros(rows, *family.noise_shape, device=family.network.config.device)
    with torch.no_grad(), recorded(family.network, family.vision, len(packing.seen)) as outputs:
        family.run(Request(inputs.batch, noise))
    return Inputs(inputs.observation, inputs.batch, packing.rows(outputs, rows))


def draw(
    policy: FrozenPolicy, family: Family, inputs: Inputs, samples: int, rng: np.random.Generator
) -> Float[NDArray[np.float32], "B S H A"]:
    """`samples` chunks of the bare policy for each row of what was seen already."""
    spec, rows = policy.spec, len(inputs.observation)
    repeated = inputs.rows(np.repeat(np.arange(rows), samples))
    noise = rng.standard_normal((rows * samples, spec.horizon, spec.action.size), dtype=np.float32)
    blank = np.zeros((rows * samples, 0), np.float32)  # a plan reads no feature
    with family.varied(rows * samples, rng):
        chunks: NDArray[np.float32] = policy.sample(Encoding(blank, blank, repeated), noise)
    return chunks.reshape(rows, samples, spec.horizon, spec.action.size)


@dataclass(frozen=True)
class Teacher:
    """The imitation loss of a frozen network.

    Attributes:
        family, bridge: the network and its processors.
        point: where the residual enters.
        spec: sizes.
    """

    family: Family
    bridge: Bridge
    point: Point
    spec: PolicySpec

    def gradient(
        self,
        inputs: Inputs,
        chunk: Float[NDArray[np.float32], "B H A"],
        residual: Float[NDArray[np.float32], "B C"],
        rng: np.random.Generator,
    ) -> tuple[Float[NDArray[np.float32], "B"], Float[NDArray[np.float32], "B C"]]:
        """Loss of each chunk under a residual, and its gradient by the residual; parameters get none.

        Raises ValueError for a chunk or residual of another shape.
        """
        rows = len(inputs.observation)
        for name, array, expected in (
            ("chunk", chunk, (rows, self.spec.horizon, self.spec.action.size)),
            ("residual", residual, (rows, self.spec.context_size)),
        ):
            if array.shape != expected:
                raise ValueError(f"{name} is {list(array.shape)}, expected {list(expected)}")
        parts = [
            self._of_rows(inputs.rows(at), chunk[at], residual[at], rng)
            for at in np.array_split(np.arange(rows), max(-(-rows // _ROWS), 1))
        ]
        loss, gradient = (np.concatenate(column) for column in zip(*parts, strict=True))
        return loss, gradient

    def _of_rows(
        self,
        inputs: Inputs,
        chunk: Float[NDArray[np.float32], "R H A"],
        residual: Float[NDArray[np.float32], "R C"],
        rng: np.random.Generator,
    ) -> tuple[Float[NDArray[np.float32], "R"], Float[NDArray[np.float32], "R C"]]:
        family, network = self.family, self.family.network
        wanted = self.bridge.normalise(chunk, inputs.observation)
        added = torch.from_numpy(np.array(residual, np.float32)).to(self.bridge.device).requires_grad_(True)
        with (
            torch.enable_grad(),
            replayed(network, family.vision, inputs.seen),
            injected(network, self.point, added, inputs.batch, everywhere=True),
        ):
            loss = family.loss(inputs.batch, wanted, rng)
            (gradient,) = torch.autograd.grad(loss.sum(), added)
        return loss.detach().float().cpu().numpy(), gradient.cpu().numpy()
