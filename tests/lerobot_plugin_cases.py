"""What tests of the lerobot plugins share: wrapped checkpoints, observations step by step, and a memory that counts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lerobot_cases import ACTIONS, observation, raw_batch

from vlamem.core.observation import Observation
from vlamem.memory.protocol import StepOut
from vlamem.memory.registry import MemoryKind, MemoryRequest
from vlamem.memory.runner import InjectOptions, RecurrentRunner


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
    """A recurrence that keeps what it reads, row by row, and proposes a fixed chunk with a fixed confidence."""

    confidence: float
    feature_size: int
    horizon: int
    context_size: int = 0
    seen: list[np.ndarray] = field(default_factory=list)
    resets: int = 0

    @property
    def chunk_shape(self) -> tuple[int, int]:
        return self.horizon, ACTIONS

    def reset(self, mask: np.ndarray) -> None:
        self.resets += int(mask.sum())

    def step(self, features: np.ndarray, rows: np.ndarray) -> StepOut:
        self.seen.extend(features)
        sure = np.full(len(rows), self.confidence, np.float32)
        chunk, yes = np.zeros((len(rows), *self.chunk_shape), np.float32), np.ones(len(rows), bool)
        return StepOut(sure, chunk, None, None, yes, np.ones_like(sure), np.zeros_like(sure), ~yes, np.zeros_like(sure))

    def state(self, row: int) -> dict[str, np.ndarray]:
        return {"ticks": np.array([len(self.seen)])}

    def restore(self, row: int, state: Any) -> None:
        raise AssertionError("nothing here restores a state")


@dataclass(frozen=True)
class CountingOptions:
    """Options of the memory `lerobot_plugin_cases:COUNTING`."""

    confidence: float = 0.0


_COUNTING: dict[int, Counting] = {}
"""By the frozen policy that each is for: a wrapped policy loads its memories anew for another number of rows."""


def _load(request: MemoryRequest) -> RecurrentRunner:
    spec, key = request.policy.spec, id(request.policy)
    _COUNTING.setdefault(key, Counting(request.options.confidence, spec.feature_size, spec.horizon))
    return RecurrentRunner("counting", _COUNTING[key], InjectOptions("chunk"))


COUNTING = MemoryKind(_load, CountingOptions, "none")
COUNTING_FILE = MemoryKind(_load, CountingOptions, "weights")


def remembering(folder: Path, confidence: float, **options: Any) -> tuple[Any, Counting]:
    """A wrapped policy with a memory that counts."""
    _COUNTING.clear()
    policy = wrapped(folder, memory=f"lerobot_plugin_cases:COUNTING?confidence={confidence}", **options)
    return policy, _COUNTING[id(policy.frozen)]
