"""A small policy for datasets of 16-pixel images: its feature is how bright they are."""

import numpy as np

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import OSC_POSE, PolicySpec


class Brightness:
    """Satisfies FrozenPolicy."""

    spec = PolicySpec("brightness", 4, 3, 2, 2, 20.0, ("agentview", "wrist"), 16, 8, OSC_POSE, "none")
    history = 1
    lowest_start = 0.2

    def encode(self, obs: Observation) -> Encoding:
        light = [obs.images[c].mean((1, 2, 3)) / 255 for c in self.spec.cameras]
        z = np.stack([*light, obs.proprioception[:, 0]], 1).astype(np.float32)
        angle = z[:, 0] * 3
        return Encoding(z, np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32), None)

    def sample(self, encoding: Encoding, noise: np.ndarray, proposal: Proposal | None = None) -> np.ndarray:
        return np.asarray(noise, np.float32)

    def context_of(self, instruction: list[str]) -> np.ndarray:
        return np.array([[len(s), s.count("e")] for s in instruction], np.float32)
