"""What tests of memories and policies share: untrained AURA-Mem, its file, and a memory without a state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.spec import PolicySpec
from vlamem.memory.designs.aura import AuraConfig, HeadConfig
from vlamem.memory.designs.aura.kind import rows_of, with_gate
from vlamem.memory.designs.aura.step import AuraMemory
from vlamem.memory.protocol import StepOut, named_arrays
from vlamem.memory.runner import InjectOptions, MemorySpec, RecurrentRunner, StatelessRunner
from vlamem.memory.weights import Header, TrainedFor, save_weights


def drawn(config: AuraConfig) -> dict[str, np.ndarray]:
    """Untrained parameters by name."""
    return named_arrays(AuraMemory(config).init_params(jax.random.key(0)))


def save_gate(
    path: Path, config: AuraConfig, trained_for: TrainedFor, metrics: Mapping[str, float] | None = None
) -> Path:
    """The weights file of an untrained gate."""
    save_weights(path, Header.of(AuraMemory(config), trained_for, "test", metrics or {}), drawn(config))
    return path


def config_for(spec: PolicySpec) -> AuraConfig:
    """An AURA-Mem that reads z and the instruction's context and proposes all that a policy takes."""
    head = HeadConfig(chunk=(spec.horizon, spec.action.size), context=spec.context_size)
    return AuraConfig(spec.feature_size + spec.context_size, head)


def runner(config: AuraConfig, rows: int = 1, gate: str = "learned", rate: float = 0.1, **inject: Any) -> Any:
    """An untrained AURA-Mem over some rows; `inject` are InjectOptions."""
    arrays = drawn(config)
    if gate != "learned":
        config, arrays = with_gate(config, arrays, gate, rate)
    return RecurrentRunner("aura", rows_of(config, arrays, rows), InjectOptions(**inject))


def aura_for(spec: PolicySpec, rows: int = 1, gate: str = "learned", rate: float = 0.1, **inject: Any) -> Any:
    """An untrained AURA-Mem for a policy."""
    return runner(config_for(spec), rows, gate, rate, **inject)


class Recalling(StatelessRunner):
    """A memory that does not tick and proposes chunks of one value, with a weight for each row."""

    def __init__(self, spec: PolicySpec, value: float, *weights: float) -> None:
        self._shape = (spec.horizon, spec.action.size)
        self.spec = MemorySpec("recalling", chunk_shape=self._shape, ticks=False)
        self._value, self._weights = value, np.array(weights, np.float32)

    def propose(
        self, out: StepOut | None, observation: Observation, encoding: Encoding, lowest_start: float
    ) -> Proposal:
        chunk = np.full((len(observation), *self._shape), self._value, np.float32)
        return Proposal.of_chunk(chunk, self._weights)
