"""The frozen TinyVLA's imitation loss under a residual on the instruction's vector, and its gradient by it.

Also how what the network reads of an observation is kept on disk, so that the loss needs no camera image.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vlamem.policies.choice import choice_times

if TYPE_CHECKING:
    from vlamem.policies.tiny.model import ModelConfig, TinyNetwork

INJECTION = "instruction"
"""The residual is added to the instruction's vector, which the reader and the flow head's condition are made of."""
DRAWS = 4
"""(t, noise) draws of a row; they share the cost of the reader."""


class Conditioning(NamedTuple):
    """What the reader takes: instruction's vector, each camera's keys and values, z and proprioception."""

    instruction: Float[Tensor, "B C"]
    seen: list[tuple[Tensor, Tensor]]
    z: Float[Tensor, "B D"]
    proprioception: Float[Tensor, "B P"]


def imitation_gradient(
    network: "TinyNetwork",
    told: Conditioning,
    chunk: Float[np.ndarray, "B H A"],
    residual: Float[np.ndarray, "B C"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> tuple[Float[np.ndarray, "B"], Float[np.ndarray, "B C"]]:
    """Flow-matching loss of `chunk` under instruction + residual, and its gradient by the residual.

    The mean over `draws` flow times near noise (see `choice_times`) and their noise, all from `rng`: an rng in the same
    state gives the same draws, so that two residuals are compared on one noise. Parameters get no gradient.
    Raises ValueError for a chunk or residual of another shape.
    """
    rows, config = len(told.z), network.config
    _check("chunk", chunk, (rows, config.horizon, config.action_size))
    _check("residual", residual, (rows, config.context))
    t, noise = _draws(rng, rows, draws, chunk.shape[1:])
    added = torch.from_numpy(np.array(residual, np.float32)).requires_grad_(True)
    with torch.enable_grad():
        loss = _flow_loss(network, told, torch.from_numpy(np.array(chunk, np.float32)), added, t, noise)
        (gradient,) = torch.autograd.grad(loss.sum(), added)
    return loss.detach().numpy(), gradient.numpy()


def _flow_loss(
    network: "TinyNetwork", told: Conditioning, chunk: Tensor, residual: Tensor, t: Tensor, noise: Tensor
) -> Float[Tensor, "B"]:
    condition, _ = network.reader(told.instruction + residual, told.seen, told.z, told.proprioception)
    draws = t.shape[1]
    chunks = chunk[:, None].expand_as(noise)
    x = (1 - t)[..., None, None] * chunks + t[..., None, None] * noise
    velocity = network.flow(x.flatten(0, 1), t.flatten(), condition.repeat_interleave(draws, 0))
    error = velocity - (noise - chunks).flatten(0, 1)
    each: Tensor = error.square().mean((1, 2)).reshape(t.shape).mean(1)
    return each


def _draws(rng: np.random.Generator, rows: int, draws: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Flow times [B, draws] and noise [B, draws, H, A]."""
    t = choice_times(rows, draws, rng)
    noise = rng.standard_normal((rows, draws, *size), dtype=np.float32)
    return torch.from_numpy(t), torch.from_numpy(noise)


def packed_size(config: "ModelConfig") -> int:
    """N, numbers that `pack` makes of a row."""
    return len(config.cameras) * config.grid**2 * 2 * config.attention + config.proprioception


def pack(told: Conditioning) -> Float[np.ndarray, "B N"]:
    """Keys, values and proprioception as float16; the instruction's vector and z are kept elsewhere."""
    parts = [part.flatten(1) for pair in told.seen for part in pair]
    return torch.cat([*parts, told.proprioception], 1).half().numpy()


def unpack(
    config: "ModelConfig",
    packed: Float[np.ndarray, "B N"],
    z: Float[np.ndarray, "B D"],
    instruction: Float[np.ndarray, "B C"],
) -> Conditioning:
    """What `pack` kept, with z and the vector of an instruction. Raises ValueError for rows of another size."""
    _check("packed conditioning", packed, (len(z), packed_size(config)))
    numbers = torch.from_numpy(np.array(packed, np.float32))
    shape = (len(z), config.grid**2, config.attention)
    size, cameras = shape[1] * shape[2], len(config.cameras)
    parts = [numbers[:, i * size : (i + 1) * size].reshape(shape) for i in range(2 * cameras)]
    return Conditioning(
        torch.from_numpy(np.array(instruction, np.float32)),
        list(zip(parts[::2], parts[1::2], strict=True)),
        torch.from_numpy(np.array(z, np.float32)),
        numbers[:, 2 * cameras * size :],
    )


def _check(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} is {list(array.shape)}, expected {list(expected)}")
