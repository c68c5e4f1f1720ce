"""AURA-Mem as a kind of memory: `aura[:FILE][?gate=...&budget=...&inject=...]`."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.rows import TICKED, AuraRows
from vlamem.memory.registry import MemoryKind, MemoryRequest
from vlamem.memory.runner import InjectOptions, JaxRows, RecurrentRunner, StepRows
from vlamem.memory.weights import Arrays, Header, identity, load_weights

__all__ = ["AURA", "AuraOptions", "with_budget", "with_gate"]


@dataclass(frozen=True)
class AuraOptions(InjectOptions):
    """Options of `aura`.

    Attributes:
        gate: another gate in the trained one's place, for controls: always, never, random or periodic.
        rate: writes per tick of the random and periodic gates, in (0, 1].
        seed: of the random gate.
        budget: writes per tick that the trained gate is held to; its file knows the rates that were measured.
    """

    gate: Literal["always", "never", "random", "periodic"] | None = None
    rate: float = 0.1
    seed: int = 0
    budget: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ValueError(f"budget is {self.budget}: expected a share of ticks, more than 0 and at most 1")
        if self.budget is not None and self.gate is not None:
            raise ValueError(f"budget {self.budget} is of the trained gate: a gate={self.gate} is given its rate")


def with_gate(
    config: AuraConfig, arrays: Arrays, gate: str, rate: float = 0.1, seed: int = 0
) -> tuple[AuraConfig, Arrays]:
    """The same memory with another gate of the controls: always, never, random or periodic."""
    kept = {name: array for name, array in arrays.items() if not name.startswith("gate.")}
    return replace(config, gate=gate, rate=rate, seed=seed), kept


def with_threshold_moved(arrays: Arrays, by: float) -> Arrays:
    """The same parameters with a gate that opens later by `by`, in units of its logit.

    Raises ValueError for a gate without a threshold.
    """
    if "gate.out_bias" not in arrays:
        raise ValueError("this gate has no threshold to move: its rate is fixed")
    return arrays | {"gate.out_bias": arrays["gate.out_bias"] - np.float32(by)}


def with_budget(header: Header, arrays: Arrays, budget: float) -> Arrays:
    """The same parameters, held to a share of ticks that may write, between those that were measured after training.

    Raises ValueError for a budget that the file does not know.
    """
    known = {
        float(key.rpartition("@")[2]): shift
        for key, shift in header.metrics.items()
        if key.startswith("threshold_shift@")
    }
    if not known:
        raise ValueError("this gate's file says nothing of other budgets: train it again with 'vlamem train-gate'")
    rates = sorted(known)
    if not rates[0] <= budget <= rates[-1]:
        raise ValueError(f"budget {budget} is outside {rates[0]} to {rates[-1]}, which this gate was measured for")
    return with_threshold_moved(arrays, float(np.interp(np.log(budget), np.log(rates), [known[r] for r in rates])))


def rows_of(config: AuraConfig, arrays: Arrays, rows: int) -> StepRows:
    """The recurrence of `rows` rows: in NumPy where the gate has a tick, else in JAX."""
    if config.gate in TICKED:
        return AuraRows(config, arrays, rows)
    from vlamem.memory.designs.aura.step import AuraMemory
    from vlamem.memory.protocol import params_of

    memory = AuraMemory(config)
    return JaxRows(memory, params_of(memory, arrays), rows)


def load(request: MemoryRequest) -> RecurrentRunner:
    """The memory in a weights file, under its options. Raises WeightsError for one of another policy."""
    options: AuraOptions = request.options
    assert request.name.file is not None
    header, arrays = load_weights(request.name.file, identity(request.policy.spec, request.weights_sha256))
    config = AuraConfig.from_config(header.config)
    if options.gate is not None:
        config, arrays = with_gate(config, arrays, options.gate, options.rate, options.seed)
    elif options.budget is not None:
        arrays = with_budget(header, arrays, options.budget)
    return RecurrentRunner(request.name.label, rows_of(config, arrays, request.rows), options)


AURA = MemoryKind(load, AuraOptions, "weights")
