"""Flow matching: SmolVLA, pi0 and pi0.5 by the sampler's real-time-chunking hook, multi-task DiT by its field."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlamem.policies.choice import choice_times
from vlamem.policies.lerobot.denoise import denoise, denoising_loss
from vlamem.policies.lerobot.families import (
    DRAWS,
    SENTENCE,
    DrawsNoiseAlone,
    Language,
    Request,
    Windowed,
    mode_of_step,
    named_modules,
)
from vlamem.policies.lerobot.injection import Point
from vlamem.policies.lerobot.packing import Vision
from vlamem.policies.lerobot.steering import CarryProcessor, LossProcessor, Steer, place
from vlamem.policies.lerobot.taps import Tap


class EulerFlow(DrawsNoiseAlone):
    """SmolVLA, pi0 and pi0.5: all sample by lerobot's euler_integrate."""

    history, first, resizes = 1, 0, True
    tap = "vision:grid2"

    def __init__(self, network: Any) -> None:
        config = network.config
        self.network = network
        self.horizon = int(config.chunk_size)
        self.noise_shape = (self.horizon, int(config.max_action_dim))
        smol = config.type == "smolvla"
        self.num_steps = int(config.num_steps if smol else config.num_inference_steps)
        self._action_size = int(config.action_feature.shape[0])
        if smol:
            inside = "model.vlm_with_expert.vlm.model."
            words = network.model.vlm_with_expert.get_vlm_model().text_model.get_input_embeddings()
            names = {"vision": "vision_model", "connector": "connector"}
            layers = f"{inside}text_model.layers"
        else:
            inside = "model.paligemma_with_expert.paligemma.model."
            words = network.model.paligemma_with_expert.paligemma.model.language_model.get_input_embeddings()
            names = {"vision": "vision_tower", "connector": "multi_modal_projector"}
            layers = f"{inside}language_model.layers"
        self.taps: dict[str, Tap] = named_modules(network, **{k: inside + v for k, v in names.items()})
        # these networks call the parts of a language layer, not the layer: its MLP is the last module that runs
        depth = len(network.get_submodule(layers))
        self.taps |= named_modules(
            network, prefix_early=f"{layers}.{depth // 2}.mlp", prefix=f"{layers}.{max(depth - 2, 0)}.mlp"
        )
        module = next(name for name, m in network.named_modules() if m is words)
        self.language = Language(module, int(words.weight.shape[1]), by_token=True)
        self.vision = (Vision(inside.split(".paligemma.")[0].split(".vlm.")[0], "embed_image"),)
        entry = "model.action_in_proj" if config.type == "pi05" else "model.action_time_mlp_out"
        width = int(network.get_submodule(entry).out_features)
        self.points = {SENTENCE: self.language.point, "expert": Point(entry, width, "steps")}

    def run(self, request: Request) -> Tensor:
        """lerobot's own predict_action_chunk, with a carrying processor in its hook where there is a prior."""
        batch = _copy(request.batch)  # it may write into it
        with self._carrying(request.steer):
            actions: Tensor = self.network.predict_action_chunk(batch, noise=request.noise, **request.guidance)
        return actions

    def loss(self, batch: dict[str, Any], wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """[B], squared error of the velocity, the mean over flow times near noise, see `choice_times`.

        lerobot's own sampler is asked, in so many steps, with a processor in its hook that asks for the velocity of
        the noised chunk at these times. What reads pictures and the sentence runs once; where the residual enters
        behind it, no gradient is kept there.
        """
        network = self.network
        target = self._as_sampled(place(wanted, self.noise_shape, self.first))
        times = torch.from_numpy(choice_times(len(target), DRAWS, rng)).to(target.device)
        drawn = torch.from_numpy(rng.standard_normal((DRAWS, *target.shape), dtype=np.float32)).to(target.device)
        asked = LossProcessor(target, times, drawn, self._action_size)
        steps = "num_steps" if network.config.type == "smolvla" else "num_inference_steps"
        kept = getattr(network.config, steps)
        predict = _with_gradients(type(network).predict_action_chunk)
        try:
            setattr(network.config, steps, DRAWS)
            network.model.sample_actions = partial(_with_gradients(type(network.model).sample_actions), network.model)
            with self._processed(asked):
                predict(network, _copy(batch), noise=asked.noise[0])
        finally:
            setattr(network.config, steps, kept)
            del network.model.sample_actions  # the class has its own
        return asked.loss

    def _as_sampled(self, chunk: Tensor) -> Tensor:
        """A chunk as the sampler makes it, before what comes behind it."""
        if getattr(self.network.config, "adapt_to_pi_aloha", False):
            return torch.as_tensor(self.network._pi_aloha_encode_actions_inv(chunk.clone()))
        return chunk

    @contextmanager
    def _carrying(self, steer: Steer | None) -> Iterator[None]:
        if steer is None:
            yield
            return
        kept, inner = self.network.config.rtc_config, self.network.model.rtc_processor
        guided = inner if kept is not None and kept.enabled else None
        prior = self._as_sampled(steer.prior)
        with self._processed(CarryProcessor(replace(steer, prior=prior), self.num_steps, guided)):
            yield

    @contextmanager
    def _processed(self, processor: Any) -> Iterator[None]:
        """Puts a processor into the sampler's hook."""
        from lerobot.policies.rtc.configuration_rtc import RTCConfig

        config, model = self.network.config, self.network.model
        kept, inner = config.rtc_config, model.rtc_processor
        try:
            config.rtc_config = kept if kept is not None and kept.enabled else RTCConfig(enabled=True)
            model.rtc_processor = processor
            yield
        finally:
            config.rtc_config, model.rtc_processor = kept, inner


def _copy(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in batch.items()}


def _with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of lerobot without the decorator that turns gradients off, where it has one."""
    found: Callable[..., Any] = getattr(function, "__wrapped__", function)
    return found


class DiT(Windowed):
    """Multi-task DiT, flow matching or diffusion: the objective's own integrator with a steered field in its hand."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        inside = "observation_encoder."
        vision = self.encoders(f"{inside}vision_encoder", f"{inside}vision_encoders")
        self.taps = named_modules(network, vision=vision)
        self.language: Language | None = Language(
            f"{inside}text_encoder", int(network.observation_encoder.text_dim), by_token=False
        )
        self._flow = bool(network.config.is_flow_matching)
        self.vision = tuple(Vision(path) for path in vision)
        self.points = {SENTENCE: self.language.point}

    def loss(self, batch: dict[str, Any], wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """[B], squared error of the velocity or of the denoised chunk; what lies before and behind it does not count.

        Flow times are near noise, see `choice_times`; this family counts from 0 (noise) to 1 (data).
        """
        network = self.network
        condition = network.observation_encoder.encode(self.window(batch))
        data = place(wanted, self.noise_shape, self.first)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = network.noise_predictor(x, t, conditioning_vec=condition)
            return out

        if not self._flow:
            error = denoising_loss(predict, network.objective.noise_scheduler, data, rng)
            return self.chunk(error).mean((1, 2))
        shrunk = 1 - float(network.objective.config.sigma_min)
        errors = []
        for drawn in choice_times(len(data), DRAWS, rng).T:
            t = torch.from_numpy(1 - drawn).to(data.device)
            noise = torch.from_numpy(rng.standard_normal(data.shape, dtype=np.float32)).to(data.device)
            at = t[:, None, None]
            velocity = predict(at * data + (1 - shrunk * at) * noise, t)
            errors.append((velocity - (data - shrunk * noise)).square())
        return self.chunk(torch.stack(errors).mean(0)).mean((1, 2))

    def run(self, request: Request) -> Tensor:
        """The objective's sampler from the given noise, [B, H, A]."""
        network = self.network
        with torch.no_grad():
            condition = network.observation_encoder.encode(self.window(request.batch))
            field, objective = network.noise_predictor, network.objective
            if self._flow:
                actions = self._integrate(field, objective, condition, request)
            else:

                def predict(x: Tensor, t: Tensor) -> Tensor:
                    out: Tensor = field(x, t, conditioning_vec=condition)
                    return out

                actions = denoise(predict, objective.noise_scheduler, objective.num_inference_steps, request)
        return self.chunk(actions)

    @staticmethod
    def _integrate(field: Any, objective: Any, condition: Tensor, request: Request) -> Tensor:
        """From t = 0 (noise) to 1 (data), as this family counts: x_t = t a + (1 - (1 - sigma) t) noise."""
        config = objective.config
        grid = torch.linspace(0, 1, config.num_integration_steps + 1, device=request.noise.device)
        rk4 = config.integration_method == "rk4"
        steered = field
        if request.steer is not None:
            steered = _SteeredField(field, request.noise, request.steer, config, calls_a_step=4 if rk4 else 1)
        integrate = objective._rk4_integrate if rk4 else objective._euler_integrate
        actions: Tensor = integrate(steered, request.noise, grid, condition)
        return actions


class _SteeredField:
    """A velocity field that carries rows along the prior's path for their first steps, then is the network's."""

    def __init__(self, field: Any, noise: Tensor, steer: Steer, config: Any, calls_a_step: int) -> None:
        self._field, self._every, self._calls = field, calls_a_step, 0
        self._along = steer.prior - (1 - config.sigma_min) * noise
        self._carried = steer.steps(config.num_integration_steps)

    def __call__(self, x: Tensor, t: Tensor, conditioning_vec: Tensor) -> Tensor:
        carried = self._calls // self._every < self._carried
        self._calls += 1
        if bool(carried.all()):
            return torch.as_tensor(self._along)
        return mode_of_step(carried, self._field(x, t, conditioning_vec=conditioning_vec), self._along)
