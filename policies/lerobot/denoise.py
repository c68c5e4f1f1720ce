"""Denoising: lerobot's Diffusion policy, its scheduler started at an intermediate step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlamem.policies.lerobot.families import Language, Request, Windowed, mode_of_step, named_modules


def denoise(predict: Callable[[Tensor, Tensor], Tensor], scheduler: Any, num_steps: int, request: Request) -> Tensor:
    """The scheduler's loop from noise, or from a noised prior at a later step for rows that are steered; a prior that
    stands for every step is the chunk.

    Rows without a prior go through exactly the calls that lerobot makes.
    """
    scheduler.set_timesteps(num_steps)
    x, steer = request.noise, request.steer
    enters = torch.zeros(len(x), dtype=torch.long, device=x.device)
    if steer is not None:
        enters = steer.steps(num_steps)
    for step, t in enumerate(scheduler.timesteps):
        if steer is not None:
            begins = (enters == step) & (steer.share > 0)
            if bool(begins.any()):
                x = mode_of_step(begins, x, scheduler.add_noise(steer.prior, request.noise, t.reshape(1)))
            if bool((enters > step).all()):
                continue
        at = torch.full(x.shape[:1], t, dtype=torch.long, device=x.device)
        rows = torch.nonzero(enters <= step)[:, 0]  # a row that waits draws nothing: it depends on itself alone
        generator = [request.generators[i] for i in rows.tolist()] if request.generators else None
        moved = scheduler.step(predict(x, at)[rows], t, x[rows], generator=generator).prev_sample
        x = x.index_copy(0, rows, moved)
    return x if steer is None else mode_of_step(enters == num_steps, x, steer.prior)


class Diffusion(Windowed):
    """lerobot's Diffusion policy: DDPM or DDIM over a convolutional network."""

    tap = "maps"

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        vision = self.encoders("diffusion.rgb_encoder", "diffusion.rgb_encoder")
        self.taps = named_modules(network, vision=vision, maps=tuple(f"{path}.backbone" for path in vision))
        self.language: Language | None = None

    def run(self, request: Request) -> Tensor:
        """The policy's sampler from the given noise, [B, H, A]; every row draws from its own generator."""
        model = self.network.diffusion
        with torch.no_grad():
            condition = model._prepare_global_conditioning(self.window(request.batch))

            def predict(x: Tensor, t: Tensor) -> Tensor:
                out: Tensor = model.unet(x, t, global_cond=condition)
                return out

            actions = denoise(predict, model.noise_scheduler, model.num_inference_steps, request)
        return self.chunk(actions)
