"""Recurrent memories as voices of a frozen policy: AURA-Mem's tick, and any other memory of the protocol.

A voice reads the policy's feature z, or z and the sentence that the policy was told: [z, context_of(instruction)].
The weights file says which by its feature size, and which policy it was made for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from vlamem.core.spec import PolicySpec
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.weights import Header, TrainedFor, WeightsError, load_weights

Arrays = Mapping[str, np.ndarray]
TICKED = ("learned", "counterfactual", "always", "never")
"""Gates that the NumPy tick runs; the other gates are controls of benchmarks and run in JAX."""


class Said(NamedTuple):
    """What one row's memory says at one tick; arrays belong to the reader.

    Attributes:
        confidence: 0 to 1.
        chunk: [H, A] in normalised action space, or None.
        context: [C] residual on the policy's conditioning, or None.
        wrote: whether the state was written.
        gate: 0 to 1, the gate's figure.
        surprise: 0 or more.
    """

    confidence: float
    chunk: Float[np.ndarray, "H A"] | None
    context: Float[np.ndarray, "C"] | None
    wrote: bool
    gate: float
    surprise: float


class RowMemory(Protocol):
    """The recurrent memory of one row; rows never share state, so that a batch equals single rows."""

    def reset(self) -> None:
        """Back to the empty state."""
        ...

    def tick(self, feature: Float[np.ndarray, "D"]) -> Said:
        """One control step."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state by name."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state. Raises ValueError for arrays of other names or shapes."""
        ...


class Voice(Protocol):
    """A recurrent memory that can be given to rows of a MemoryPolicy."""

    feature_size: int
    context_size: int
    chunk_shape: tuple[int, int] | None

    def row(self) -> RowMemory:
        """A memory in its empty state."""
        ...


def identity(spec: PolicySpec, weights_sha256: str | None) -> TrainedFor:
    """What a memory's weights name as their policy: its spec, normaliser and, where known, the hash of its weights."""
    marks = [spec.fingerprint, *([weights_sha256[:16]] if weights_sha256 else [])]
    return TrainedFor(spec.name, "-".join(marks), spec.normaliser)


class AuraVoice:
    """AURA-Mem with trained parameters; the NumPy tick where its gate has one."""

    def __init__(self, config: AuraConfig, arrays: Arrays, header: Header | None = None) -> None:
        self.config, self.header = config, header
        self._arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        self.feature_size = config.feature_size
        self.context_size = config.head.context
        self.chunk_shape = config.head.chunk

    @classmethod
    def load(cls, path: str | Path, used_with: TrainedFor | None = None) -> "AuraVoice":
        """The memory in a weights file.

        Raises WeightsError for one of another policy, spec, normaliser or, where both sides know it, other weights.
        """
        header, arrays = load_weights(Path(path))
        if used_with is not None:
            made_for = header.trained_for.fingerprint
            if "-" not in used_with.fingerprint and made_for.partition("-")[0] == used_with.fingerprint:
                used_with = replace(used_with, fingerprint=made_for)  # a policy of unknown origin: its spec must do
            load_weights(Path(path), used_with)
        return cls(header.config, arrays, header)

    def with_gate(self, gate: str, rate: float = 0.1, seed: int = 0) -> "AuraVoice":
        """The same memory with another gate of the controls: always, never, random or periodic."""
        arrays = {name: a for name, a in self._arrays.items() if not name.startswith("gate.")}
        return AuraVoice(replace(self.config, gate=gate, rate=rate, seed=seed), arrays, self.header)

    def with_threshold_moved(self, by: float) -> "AuraVoice":
        """The same memory whose gate opens later by `by`, in units of its logit."""
        if "gate.out_bias" not in self._arrays:
            raise ValueError(f"gate {self.config.gate!r} has no threshold to move: its rate is fixed")
        moved = {"gate.out_bias": self._arrays["gate.out_bias"] - np.float32(by)}
        return AuraVoice(self.config, self._arrays | moved, self.header)

    def row(self) -> RowMemory:
        """A memory in its empty state."""
        if self.config.gate in TICKED:
            return _TickRow(AuraTick(self.config, self._arrays))
        from vlamem.memory.designs.aura.dispatch import params_of
        from vlamem.memory.designs.aura.step import AuraMemory

        return JaxRow(AuraMemory(self.config), params_of(self.config, self._arrays))


@dataclass
class _TickRow:
    """AuraTick as a row; W and b are its whole state."""

    aura: AuraTick

    def reset(self) -> None:
        self.aura.reset()

    def tick(self, feature: Float[np.ndarray, "D"]) -> Said:
        said = self.aura.tick(feature)
        chunk = None if said.chunk is None else said.chunk.copy()  # the next tick overwrites these
        context = None if said.context is None else said.context.copy()
        return Said(said.confidence, chunk, context, said.wrote, said.gate, said.surprise)

    def state(self) -> dict[str, np.ndarray]:
        return {"W": self.aura.W.copy(), "b": self.aura.b.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        _fitting(self.state(), state)
        self.aura.W[:], self.aura.b[:] = state["W"], state["b"]


class MemoryVoice:
    """Any memory of vlamem.memory.protocol with its parameters, e.g. a baseline; runs in JAX, one row at a time."""

    def __init__(self, memory: Any, params: Any) -> None:
        self.memory, self.params = memory, params
        self.feature_size = memory.feature_size
        self.context_size = memory.head.context
        self.chunk_shape = memory.head.chunk

    def row(self) -> RowMemory:
        """A memory in its empty state."""
        return JaxRow(self.memory, self.params)


class JaxRow:
    """One row of a memory in JAX."""

    def __init__(self, memory: Any, params: Any) -> None:
        import jax
        import jax.numpy as jnp

        self._memory, self._params = memory, params
        self._step = _jitted(memory)
        self._empty = memory.init(1)
        self._state = self._empty
        self._go_on = jnp.zeros(1, bool)
        self._tree = jax.tree

    def reset(self) -> None:
        """Back to the empty state."""
        self._state = self._empty

    def tick(self, feature: Float[np.ndarray, "D"]) -> Said:
        """One control step."""
        self._state, out = self._step(self._params, self._state, feature[None].astype(np.float32), self._go_on)

        def first(x: Any) -> Any:
            return None if x is None else np.asarray(x[0])

        return Said(
            float(out.confidence[0]),
            first(out.chunk),
            first(out.context),
            bool(out.wrote[0]),
            float(out.gate[0]),
            float(out.surprise[0]),
        )

    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state by name."""
        from vlamem.memory.protocol import flatten

        return {name or "state": np.array(x[0]) for name, x in flatten(self._state).items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Makes `state` the state."""
        _fitting(self.state(), state)
        import jax.numpy as jnp

        leaves = [jnp.asarray(state[name])[None] for name in self.state()]
        self._state = self._tree.unflatten(self._tree.structure(self._empty), leaves)


_STEPS: dict[Any, Any] = {}


def _jitted(memory: Any) -> Any:
    """The compiled step of a memory; memories are hashable so that each is compiled once."""
    if memory not in _STEPS:
        import jax

        _STEPS[memory] = jax.jit(memory.step)
    return _STEPS[memory]


def _fitting(mine: Arrays, given: Arrays) -> None:
    """Raises ValueError when `given` has not the names and shapes of `mine`."""
    shapes, theirs = ({k: v.shape for k, v in s.items()} for s in (mine, given))
    if shapes != theirs:
        raise ValueError(f"a state of {theirs} does not fit a memory of {shapes}: it was saved by another memory")


def check_fits(voice: Voice, spec: PolicySpec) -> None:
    """Raises WeightsError when a memory's sizes are not those of the policy that it is to speak to."""
    sizes = {spec.feature_size: "z", spec.feature_size + spec.context_size: "z and context"}
    if voice.feature_size not in sizes:
        raise WeightsError(
            f"this memory reads features of size {voice.feature_size}, policy '{spec.name}' gives "
            f"{' or '.join(f'{size} ({name})' for size, name in sizes.items())}: retrain with 'vlamem train-gate'"
        )
    if voice.context_size not in (0, spec.context_size):
        raise WeightsError(
            f"this memory proposes contexts of size {voice.context_size}, policy '{spec.name}' is told things by "
            f"{spec.context_size}: retrain with 'vlamem train-gate'"
        )
    expected = (spec.horizon, spec.action.size)
    if voice.chunk_shape not in (None, expected):
        raise WeightsError(
            f"this memory proposes chunks of {voice.chunk_shape}, policy '{spec.name}' takes {expected}: retrain with "
            "'vlamem train-gate'"
        )
