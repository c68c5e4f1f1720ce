"""Denoising: lerobot's Diffusion policy, its scheduler started at an intermediate step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlamem.policies.lerobot.families import DRAWS, Language, Request, Windowed, mode_of_step, named_modules
from vlamem.policies.lerobot.injection import Point
from vlamem.policies.lerobot.packing import Vision
from vlamem.policies.lerobot.steering import place


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


def denoising_loss(
    predict: Callable[[Tensor, Tensor], Tensor], scheduler: Any, data: Tensor, rng: np.random.Generator
) -> Tensor:
    """[B, L, A], squared error of what the network predicts of `data` with noise, the mean over some noise levels.

    One level is drawn in each of as many equal parts of the training's. Raises ValueError for a scheduler whose
    network predicts something else than noise, sample or velocity.
    """
    levels = int(scheduler.config.num_train_timesteps)
    errors = []
    for part in range(DRAWS):
        drawn = ((part + rng.random(len(data))) / DRAWS * levels).astype(np.int64)
        t = torch.from_numpy(drawn).to(data.device)
        noise = torch.from_numpy(rng.standard_normal(data.shape, dtype=np.float32)).to(data.device)
        found = predict(scheduler.add_noise(data, noise, t), t)
        errors.append((found - _predicted(scheduler, data, noise, t)).square())
    return torch.stack(errors).mean(0)


def _predicted(scheduler: Any, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What a network of this scheduler predicts where it is right."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return data
    if kind == "v_prediction":
        return torch.as_tensor(scheduler.get_velocity(data, noise, t))
    raise ValueError(f"a network that predicts {kind!r}: expected epsilon, sample or v_prediction")


class Diffusion(Windowed):
    """lerobot's Diffusion policy: DDPM or DDIM over a convolutional network."""

    tap = "maps"

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        vision = self.encoders("diffusion.rgb_encoder", "diffusion.rgb_encoder")
        self.taps = named_modules(network, vision=vision, maps=tuple(f"{path}.backbone" for path in vision))
        self.language: Language | None = None
        self.vision = tuple(Vision(path) for path in vision)
        self.points = {"global_conditioning": Point("diffusion.unet", _conditioning_size(network), "global_cond")}

    def loss(self, batch: dict[str, Any], wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """[B], squared error of the denoised chunk; what lies before and behind it is not known and does not count."""
        model = self.network.diffusion
        condition = model._prepare_global_conditioning(self.window(batch))

        def predict(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = model.unet(x, t, global_cond=condition)
            return out

        data = place(wanted, self.noise_shape, self.first)
        return self.chunk(denoising_loss(predict, model.noise_scheduler, data, rng)).mean((1, 2))

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


def _conditioning_size(network: Any) -> int:
    """Entries of what the U-Net is conditioned on, beside the step's: that of the first of its blocks tells."""
    block = network.diffusion.unet.down_modules[0][0]
    return int(block.cond_encoder[1].in_features) - int(network.config.diffusion_step_embed_dim)
