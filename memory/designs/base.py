"""The base of a memory design: how it is made and kept, and how it is trained unless it says otherwise."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import Any, Self

import jax
from jaxtyping import Array, Float

from vlamem.memory.config import HeadConfig, checked_settings
from vlamem.memory.protocol import Feature, Features, Params, State, StepOut, Ticks, scan


class MemoryDesign:
    """What every design has; a design is a frozen dataclass of this base.

    Its fields are `feature_size`, `head`, and options with defaults (bool, int, float or str), which is all that makes
    it. What remains to be written are init_params, init and step of vlamem.memory.protocol.Memory, and a `scan` where
    there is a quicker one than T steps.
    """

    @classmethod
    def make(cls, feature_size: int, head: HeadConfig, **options: Any) -> Self:
        """A memory of this design. Raises ValueError for an option that it has not, or of another type."""
        return cls(**checked_settings(cls, {"feature_size": feature_size, "head": head, **options}))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The memory that `to_config` described. Raises ValueError for an unknown setting."""
        return cls.make(**{**config, "head": HeadConfig.from_config(config["head"])})

    def to_config(self) -> dict[str, Any]:
        """All fields as JSON."""
        fields: Any = self
        config: dict[str, Any] = json.loads(json.dumps(asdict(fields)))
        return config

    def with_head(self, head: HeadConfig) -> Self:
        """The same memory with another head."""
        fields: Any = self
        made: Self = replace(fields, head=head)
        return made

    @property
    def carries_state_in_training(self) -> bool:
        """Every episode of training starts from the empty state."""
        return False

    @property
    def gate_signal(self) -> str | None:
        """No gate is learned."""
        return None

    def for_training(self, signal: str) -> Self:
        """The memory as it is. Raises ValueError for the counterfactual signal, which needs a gate."""
        if signal == "counterfactual":
            raise ValueError(f"{type(self).__name__} has no gate that the counterfactual signal could teach")
        return self

    def project(self, params: Params, feedback: float) -> Params:
        """Parameters may be anything."""
        return params

    def move_threshold(self, params: Params, by: Float[Array, ""]) -> Params:
        """Raises ValueError: there is no threshold."""
        raise ValueError(f"{type(self).__name__} has no threshold to move: its rate of writes is fixed, ask for none")

    def gate_reading(self, params: Params, state: State, z: Feature, out: StepOut) -> Any:
        """Raises ValueError: no gate is learned."""
        raise ValueError(f"{type(self).__name__} has no learned gate")

    def gate_logit(self, params: Params, reading: Any) -> Float[Array, "B"]:
        """Raises ValueError: no gate is learned."""
        raise ValueError(f"{type(self).__name__} has no learned gate")

    def writes(self, params: Params, zs: Features, resets: Ticks) -> Callable[[Params], Ticks]:
        """Which ticks are written from empty states, by plain scan."""
        memory: Any = self
        return lambda moved: _wrote(memory)(moved, zs, resets)

    def state_size(self, state: State) -> Float[Array, "B"] | None:
        """The state needs no bound."""
        return None

    def with_bound(self, bound: float) -> Self:
        """Raises ValueError: the state needs no bound."""
        raise ValueError(f"{type(self).__name__} has no bound of its state")


@cache
def _wrote(memory: Any) -> Callable[..., Ticks]:
    """Which ticks a memory writes; kept, so that it is compiled once."""

    def wrote(params: Params, zs: Features, resets: Ticks) -> Ticks:
        ticks: Ticks = scan(memory, params, memory.init(resets.shape[1]), zs, resets)[1].wrote
        return ticks

    return jax.jit(wrote)
