"""What a proposal becomes inside a sampler: a prior in the network's units and how many of its steps it stands for."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.seeding import integer_seed, stream


@dataclass(frozen=True)
class Steer:
    """Where each row of a batch enters the sampler.

    Attributes:
        prior: [B, *noise shape], the proposed chunk in the network's units.
        share: [B], part of the way from noise to data that the prior stands for, 0 to 1; 0 for rows left alone.
        weight: [B], 0 to 1, of the proposal.
    """

    prior: Tensor
    share: Tensor
    weight: Tensor

    def steps(self, count: int) -> Tensor:
        """[B], whole sampler steps of `count` that the prior stands for."""
        return torch.floor(self.share * count + 1e-6).long()


Velocity = Callable[..., Tensor]


class CarryProcessor:
    """lerobot's real-time-chunking processor with a prior: moves x along the prior's path, then asks the network.

    While a row is above its flow time t0 the velocity is noise - prior, the path of x_t = (1 - t) prior + t noise;
    below it the velocity is the network's, through `inner` where the policy has such a processor already. A step in
    which every row is carried does not call the network at all. Retrieve-then-steer through the sampler's own hook.
    """

    def __init__(self, steer: Steer, num_steps: int, inner: Any = None) -> None:
        self._prior, self._num_steps, self._inner = steer.prior, num_steps, inner
        carried = steer.steps(num_steps)
        self._carried = carried if inner is None else carried.clamp(max=num_steps - 1)  # guidance sees the last step
        self._noise: Tensor | None = None

    def denoise_step(
        self,
        x_t: Tensor,
        prev_chunk_left_over: Tensor | None,
        inference_delay: int | None,
        time: float,
        original_denoise_step_partial: Velocity,
        execution_horizon: int | None = None,
    ) -> Tensor:
        """The velocity at flow time `time` (1 is noise, 0 data), [B, H, A']."""
        if self._noise is None:
            self._noise = x_t
        carried = round((1 - time) * self._num_steps) < self._carried
        along = self._noise - self._prior
        if bool(carried.all()):
            return along
        if self._inner is not None:
            v = self._inner.denoise_step(
                x_t=x_t,
                prev_chunk_left_over=prev_chunk_left_over,
                inference_delay=inference_delay,
                time=time,
                original_denoise_step_partial=original_denoise_step_partial,
                execution_horizon=execution_horizon,
            )
        else:
            v = original_denoise_step_partial(x_t)
        return torch.where(carried[:, None, None], along, v)

    def is_debug_enabled(self) -> bool:
        """Whether the wrapped processor keeps a record of its steps."""
        return self._inner is not None and bool(self._inner.is_debug_enabled())

    def track(self, **step: Any) -> None:
        """Passes a step to the wrapped processor's record."""
        if self._inner is not None:
            self._inner.track(**step)


class LossProcessor:
    """In the place of lerobot's real-time-chunking processor: asks for the velocity of a chunk with noise at each step.

    x_t = (1 - t) target + t noise, whose velocity is noise - target; nothing is sampled.

    Args:
        target: [B, L, W], the chunk.
        times: [B, S], a flow time for each of S steps, in place of the sampler's own.
        noise: [S, B, L, W].
        actions: entries that count, the first ones.
    """

    def __init__(self, target: Tensor, times: Tensor, noise: Tensor, actions: int) -> None:
        self._target, self._times, self.noise, self._actions = target, times, noise, actions
        self._errors: list[Tensor] = []

    @property
    def loss(self) -> Tensor:
        """[B], mean squared error over all steps and the entries that are actions."""
        return torch.stack(self._errors).mean(0)

    def denoise_step(self, x_t: Tensor, time: float, original_denoise_step_partial: Velocity, **others: Any) -> Tensor:
        """A velocity of 0: where the sampler goes is of no interest."""
        noise, t = self.noise[len(self._errors)], self._times[:, len(self._errors)]
        at = t[:, None, None]
        velocity = original_denoise_step_partial((1 - at) * self._target + at * noise, current_timestep=t)
        error = (velocity - (noise - self._target))[..., : self._actions]
        self._errors.append(error.square().mean((1, 2)))
        return torch.zeros_like(x_t)

    def is_debug_enabled(self) -> bool:
        """No record of steps is kept."""
        return False


def place(chunk: Tensor, shape: tuple[int, int], first: int) -> Tensor:
    """[B, *shape]: a chunk from step `first` on in what is sampled, its ends held, the padding zero."""
    length, width = shape
    at = (torch.arange(length, device=chunk.device) - first).clamp(0, chunk.shape[1] - 1)
    wide = torch.zeros(len(chunk), length, width, device=chunk.device)
    wide[:, :, : chunk.shape[2]] = chunk[:, at]
    return wide


def row_seed(noise: NDArray[np.float32]) -> int:
    """An integer that depends on one row's noise and on nothing else."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(noise).tobytes()).digest()[:4], "little")


def widen(
    noise: Float[NDArray[np.float32], "B H A"], shape: tuple[int, int], first: int
) -> Float[NDArray[np.float32], "B L W"]:
    """Noise of the network's own size with the given noise in it, from step `first` on.

    Networks are trained on actions padded to a fixed width, with noise in the padding too. It is drawn from a stream
    that the row's noise names, so that a row depends on its own noise alone.
    """
    if noise.shape[1:] == shape:
        return noise
    wide = (
        np.stack([stream(row_seed(row), "padding").standard_normal(shape, dtype=np.float32) for row in noise])
        if len(noise)
        else np.zeros((0, *shape), np.float32)
    )
    wide[:, first : first + noise.shape[1], : noise.shape[2]] = noise
    return wide


def row_generators(noise: Float[NDArray[np.float32], "B H A"], device: str) -> list[torch.Generator]:
    """One generator a row for samplers that draw again at every step, each named by its row's noise."""
    made = []
    for row in noise:
        generator = torch.Generator(device)
        generator.manual_seed(integer_seed(row_seed(row), "sampler"))
        made.append(generator)
    return made
