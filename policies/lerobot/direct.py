"""Direct regression: ACT, whose output a proposal is blended into, since it has no sampler to steer."""

from typing import Any

import torch
from torch import Tensor

from vlamem.policies.lerobot.families import Language, Request, mode_of_step, named_modules


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

    def run(self, request: Request) -> Tensor:
        """lerobot's own chunk, [B, H, A]; with a prior (1 - confidence) of it and confidence of the prior."""
        with torch.no_grad():
            actions: Tensor = self.network.predict_action_chunk(dict(request.batch))
        steer = request.steer
        if steer is None:
            return actions
        c = steer.weight[:, None, None]
        return mode_of_step(steer.weight > 0, actions, (1 - c) * actions + c * steer.prior)
