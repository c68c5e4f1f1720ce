"""A frozen lerobot policy's own imitation loss under a residual on its conditioning, and its gradient by it.

Also samples of it from one look at an observation, whose disagreement says where it must choose.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from vlamem.core.observation import Encoding
from vlamem.policies.lerobot.injection import injected
from vlamem.policies.lerobot.packing import recorded, replayed

if TYPE_CHECKING:
    from vlamem.policies.lerobot.policy import Inputs, LeRobotPolicy

_ROWS = 64
"""Chunks whose loss is computed at once: a report asks for that of hundreds."""


def seen_by(policy: "LeRobotPolicy", inputs: "Inputs") -> "Inputs":
    """`inputs` with what the network's vision makes of them: the pass goes no further than that."""
    from vlamem.policies.lerobot.families import Request
    from vlamem.policies.lerobot.policy import Inputs

    if inputs.seen:
        return inputs
    rows, family = len(inputs.observation), policy.family
    noise = torch.zeros(rows, *family.noise_shape, device=policy.bridge.device)
    calls = len(policy.packing.seen)
    with torch.no_grad(), recorded(policy.network, family.vision, calls) as outputs:
        family.run(Request(inputs.batch, noise))
    return Inputs(inputs.observation, inputs.batch, policy.packing.rows(outputs, rows))


def draw(
    policy: "LeRobotPolicy", encoding: Encoding, samples: int, rng: np.random.Generator
) -> Float[NDArray[np.float32], "B S H A"]:
    """`samples` chunks of the bare policy for each row; its vision runs once for all of them."""
    inputs = seen_by(policy, encoding.context)
    rows = len(inputs.observation)
    spec = policy.spec
    repeated = inputs.rows(np.repeat(np.arange(rows), samples))
    noise = rng.standard_normal((rows * samples, spec.horizon, spec.action.size), dtype=np.float32)
    blank = np.zeros((rows * samples, 0), np.float32)  # a plan reads no feature
    with policy.family.varied(rows * samples, rng):
        chunks: NDArray[np.float32] = policy.sample(Encoding(blank, blank, repeated), noise)
    return chunks.reshape(rows, samples, spec.horizon, spec.action.size)


def imitation_gradient(
    policy: "LeRobotPolicy",
    encoding: Encoding,
    chunk: Float[NDArray[np.float32], "B H A"],
    residual: Float[NDArray[np.float32], "B C"],
    rng: np.random.Generator,
) -> tuple[Float[NDArray[np.float32], "B"], Float[NDArray[np.float32], "B C"]]:
    """Loss of each chunk under a residual at the policy's injection point, and its gradient by the residual.

    Parameters get no gradient. Raises ValueError for a chunk or residual of another shape.
    """
    inputs: Inputs = encoding.context
    spec, rows = policy.spec, len(inputs.observation)
    for name, array, expected in (
        ("chunk", chunk, (rows, spec.horizon, spec.action.size)),
        ("residual", residual, (rows, spec.context_size)),
    ):
        if array.shape != expected:
            raise ValueError(f"{name} is {list(array.shape)}, expected {list(expected)}")
    parts = [
        _of_rows(policy, inputs.rows(at), chunk[at], residual[at], rng)
        for at in np.array_split(np.arange(rows), max(-(-rows // _ROWS), 1))
    ]
    loss, gradient = (np.concatenate(column) for column in zip(*parts, strict=True))
    return loss, gradient


def _of_rows(
    policy: "LeRobotPolicy",
    inputs: "Inputs",
    chunk: Float[NDArray[np.float32], "R H A"],
    residual: Float[NDArray[np.float32], "R C"],
    rng: np.random.Generator,
) -> tuple[Float[NDArray[np.float32], "R"], Float[NDArray[np.float32], "R C"]]:
    wanted = policy.bridge.normalise(chunk, inputs.observation)
    added = torch.from_numpy(np.array(residual, np.float32)).to(policy.bridge.device).requires_grad_(True)
    network, family = policy.network, policy.family
    point = family.points[policy.injection]
    with (
        torch.enable_grad(),
        replayed(network, family.vision, inputs.seen),
        injected(network, point, added, inputs.batch, everywhere=True),
    ):
        loss = family.loss(inputs.batch, wanted, rng)
        (gradient,) = torch.autograd.grad(loss.sum(), added)
    return loss.detach().float().cpu().numpy(), gradient.cpu().numpy()
