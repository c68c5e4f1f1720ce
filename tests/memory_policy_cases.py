"""What tests of memory policies share: a policy that follows whatever is proposed, observations and noise for any."""

from dataclasses import replace
from typing import Any

import numpy as np
import point_mass

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.policies.protocol import FrozenPolicy


class Wide(point_mass.PointPolicy):
    """The point-mass policy with features wide enough for a memory and a context that it follows."""

    def __init__(self) -> None:
        super().__init__(replace(point_mass.SPEC, feature_size=16, context_size=3))
        self.encoded: list[int] = []
        self.sampled: list[Proposal | None] = []

    def encode(self, obs: Observation) -> Encoding:
        self.encoded.append(len(obs))
        narrow = super().encode(obs)
        z = np.tile(narrow.z, (1, 8)) * np.arange(1, 17, dtype=np.float32)
        angle = narrow.z[:, 0]
        key = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        return replace(narrow, z=z, key=key, context=np.zeros((len(z), 3), np.float32))

    def sample(self, encoding: Encoding, noise: Any, proposal: Proposal | None = None) -> Any:
        self.sampled.append(proposal)
        chunk = 0.5 * np.asarray(noise, np.float32)
        chunk[..., :2] += encoding.z[:, None, :2]
        if proposal is not None:
            w = proposal.context_weight[:, None, None]
            if proposal.context is not None:
                moved = chunk.copy()
                moved[..., :3] += w * proposal.context[:, None]
                chunk = np.where(w > 0, moved, chunk)
            w = proposal.chunk_weight[:, None, None]
            if proposal.chunk is not None:
                chunk = np.where(w > 0, (1 - w) * chunk + w * proposal.chunk, chunk)
        return chunk.astype(np.float32)

    def context_of(self, instruction: list[str]) -> Any:
        return np.array([[len(s), s.count("e"), 1.0] for s in instruction], np.float32)


def observations(policy: FrozenPolicy, rows: int, name: str = "obs") -> Observation:
    spec, draw = policy.spec, stream(0, name)
    size = (rows, spec.image_size, spec.image_size, 3)
    body = draw.uniform(-0.1, 0.3, (rows, spec.proprioception_size)).astype(np.float32)
    images = {c: draw.integers(0, 255, size, dtype=np.uint8) for c in spec.cameras}
    return Observation(images, body, ("touch the red block",) * rows)


def noise_for(policy: FrozenPolicy, rows: int) -> Any:
    size = (rows, policy.spec.horizon, policy.spec.action.size)
    return stream(0, "noise").standard_normal(size).astype(np.float32)
