"""Flow matching: SmolVLA, pi0 and pi0.5 by the sampler's real-time-chunking hook, multi-task DiT by its field."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vlamem.policies.lerobot.denoise import denoise
from vlamem.policies.lerobot.families import Language, Request, Windowed, mode_of_step, named_modules
from vlamem.policies.lerobot.steering import CarryProcessor, Steer
from vlamem.policies.lerobot.taps import Tap


class EulerFlow:
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

    def run(self, request: Request) -> Tensor:
        """lerobot's own predict_action_chunk, with a carrying processor in its hook where there is a prior."""
        batch = {k: v.clone() if isinstance(v, Tensor) else v for k, v in request.batch.items()}  # it may write into it
        with self._carrying(request.steer):
            actions: Tensor = self.network.predict_action_chunk(batch, noise=request.noise, **request.guidance)
        return actions

    @contextmanager
    def _carrying(self, steer: Steer | None) -> Iterator[None]:
        if steer is None:
            yield
            return
        from lerobot.policies.rtc.configuration_rtc import RTCConfig

        config, model = self.network.config, self.network.model
        kept, inner = config.rtc_config, model.rtc_processor
        guided = inner if kept is not None and kept.enabled else None
        prior = steer.prior
        if getattr(config, "adapt_to_pi_aloha", False):
            prior = self.network._pi_aloha_encode_actions_inv(prior.clone())
        try:
            config.rtc_config = kept if guided is not None else RTCConfig(enabled=True)
            model.rtc_processor = CarryProcessor(replace(steer, prior=prior), self.num_steps, guided)
            yield
        finally:
            config.rtc_config, model.rtc_processor = kept, inner


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
