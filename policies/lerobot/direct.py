"""Direct regression: ACT, whose output a proposal is blended into, since it has no sampler to steer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlamem.policies.lerobot.families import Language, Request, mode_of_step, named_modules
from vlamem.policies.lerobot.injection import Point
from vlamem.policies.lerobot.packing import Vision

_LATENT = "model.encoder_latent_input_proj"


class Direct:
    """lerobot's ACT."""

    history, first, resizes = 1, 0, False
    tap = "vision"

    def __init__(self, network: Any) -> None:
        config = network.config
        self.network = network
        self.horizon = int(config.chunk_size)
        self.noise_shape = (self.horizon, int(config.action_feature.shape[0]))
        self.taps = named_modules(network, vision="model.backbone")
        encoder = named_modules(network, encoder="model.encoder")["encoder"]
        self.taps["encoder"] = type(encoder)("encoder", encoder.modules, sequence_first=True)
        self.language: Language | None = None
        self.vision = (Vision("model.backbone", key="feature_map"),)
        size = int(config.dim_model)
        self.points = {"latent": Point(_LATENT, size, "vector"), "decoder": Point("model.decoder", size, "queries")}

    def run(self, request: Request) -> Tensor:
        """lerobot's own chunk, [B, H, A]; with a prior (1 - confidence) of it and confidence of the prior."""
        with torch.no_grad():
            actions: Tensor = self.network.predict_action_chunk(dict(request.batch))
        steer = request.steer
        if steer is None:
            return actions
        c = steer.weight[:, None, None]
        return mode_of_step(steer.weight > 0, actions, (1 - c) * actions + c * steer.prior)

    def loss(self, batch: dict[str, Any], wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """[B], mean absolute error of the chunk, as ACT is trained, under the latent of 0 that it acts with."""
        images = [batch[key] for key in self.network.config.image_features]
        actions: Tensor = self.network.model({**batch, "observation.images": images})[0]
        return (actions - wanted).abs().mean((1, 2))

    @contextmanager
    def varied(self, rows: int, rng: np.random.Generator) -> Iterator[None]:
        """Rows act under latents that are drawn from ACT's prior in place of 0; without a latent they do not differ."""
        config = self.network.config
        if not config.use_vae:
            yield
            return
        drawn = torch.from_numpy(rng.standard_normal((rows, config.latent_dim), dtype=np.float32)).to(config.device)

        def latent(module: nn.Module, inputs: Any) -> tuple[Tensor]:
            return (drawn,)

        handle = self.network.get_submodule(_LATENT).register_forward_pre_hook(latent)
        try:
            yield
        finally:
            handle.remove()
