"""What tests of the lerobot plugins share: wrapped checkpoints, observations step by step, and a voice that counts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot_cases import ACTIONS, observation, raw_batch

from vlamem.core.observation import Observation
from vlamem.memory.runner import Said


def wrapped(folder: Path, **options: Any) -> Any:
    from lerobot_policy_vlamem import VlamemConfig, VlamemPolicy

    return VlamemPolicy(VlamemConfig(inner=str(folder), device="cpu", **options))


def batch(step: int, rows: int = 2) -> dict[str, Any]:
    """What lerobot-eval hands to `select_action`, another one at every step."""
    return raw_batch(seen(step, rows))


def seen(step: int, rows: int = 1) -> Observation:
    """The same as an observation of this project."""
    obs = observation(rows)
    images = {name: np.roll(image, 5 * step, axis=2) for name, image in obs.images.items()}
    return Observation(images, obs.proprioception + np.float32(0.01 * step), obs.instruction)


@dataclass
class Counting:
    """A voice that counts its ticks and proposes a fixed chunk with a fixed confidence."""

    confidence: float
    feature_size: int
    horizon: int
    context_size: int = 0
    seen: list[np.ndarray] = field(default_factory=list)
    resets: int = 0

    @property
    def chunk_shape(self) -> tuple[int, int]:
        return self.horizon, ACTIONS

    def row(self) -> "Counting":
        return self

    def reset(self) -> None:
        self.resets += 1

    def tick(self, feature: np.ndarray) -> Said:
        self.seen.append(feature)
        return Said(self.confidence, np.zeros(self.chunk_shape, np.float32), None, True, 1.0, 0.0)

    def state(self) -> dict[str, np.ndarray]:
        return {"ticks": np.array([len(self.seen)])}


def remembering(folder: Path, confidence: float, **options: Any) -> tuple[Any, Counting]:
    """A wrapped policy whose memory is a Counting voice."""
    from vlamem.policies.fuse import SpeakOptions

    policy = wrapped(folder, **options)
    voice = Counting(confidence, policy.frozen.spec.feature_size, policy.frozen.spec.horizon)
    policy._voice, policy._options = voice, SpeakOptions("chunk")
    return policy, voice
