"""Running AURA-Mem over a batch: rows and device decide which implementation does it, the caller names none."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vlamem.memory.designs.aura import pallas
from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.designs.aura.step import AuraMemory, AuraState
from vlamem.memory.protocol import StepOut, check_feature_size, params_of

Arrays = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
_TICK_ROWS = 4  # up to here, one NumPy tick a row is quicker than a jitted call


def implementation(config: AuraConfig, batch: int, device: str) -> str:
    """'reference', 'pallas' or 'xla', for `batch` rows on `device` ('cpu' or 'gpu')."""
    if device == "gpu" and pallas.supports(config):
        return "pallas"
    ticks = config.gate in ("learned", "counterfactual", "always", "never")
    return "reference" if device == "cpu" and ticks and batch <= _TICK_ROWS else "xla"


class AuraRunner:
    """A memory of `batch` rows that keeps its own state between ticks.

    Args:
        config: sizes and gate.
        arrays: parameters by dotted name, as `weights.load_weights` gives them.
        batch: rows.
        device: 'cpu', 'gpu', or None for where JAX computes.
    """

    def __init__(self, config: AuraConfig, arrays: Arrays, batch: int, device: str | None = None) -> None:
        self.config, self.batch = config, batch
        self.implementation = implementation(config, batch, device or jax.default_backend())
        if self.implementation == "reference":
            self._ticks = [AuraTick(config, arrays) for _ in range(batch)]
            return
        memory = AuraMemory(config)
        params, self._state = params_of(memory, arrays), memory.init(batch)
        self._step = functools.partial(_compiled(config, self.implementation), params)

    def step(self, z: Float[np.ndarray, "B D"], reset: Bool[np.ndarray, "B"]) -> StepOut:
        """One control tick of all rows, as NumPy arrays; rows under `reset` start empty within it.

        Raises ValueError for a feature of another size or another number of rows.
        """
        check_feature_size(z.shape[-1], self.config.feature_size)
        if z.shape != (self.batch, self.config.feature_size) or reset.shape != (self.batch,):
            raise ValueError(
                f"features {z.shape} and reset {reset.shape} are not of the {self.batch} rows of this memory"
            )
        if self.implementation != "reference":
            self._state, out = self._step(self._state, jnp.asarray(z), jnp.asarray(reset))
            on_host: StepOut = jax.tree.map(np.asarray, out)
            return on_host
        rows = []
        for tick, row, again in zip(self._ticks, z, reset, strict=True):
            if again:
                tick.reset()
            rows.append(tick.tick(row))
        return _together(rows)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state by name: W [B, d_v, d_k], b [B, d_v] and a control gate's carry [B, E]."""
        if self.implementation == "reference":
            W, b = np.stack([t.W for t in self._ticks]), np.stack([t.b for t in self._ticks])
            return {"W": W, "b": b, "carry": np.zeros((self.batch, 0), np.float32)}
        return {name: np.array(x) for name, x in self._state._asdict().items()}

    @state.setter
    def state(self, saved: Mapping[str, np.ndarray]) -> None:
        shapes = {name: x.shape for name, x in self.state.items()}
        if {name: x.shape for name, x in saved.items()} != shapes:
            raise ValueError(f"a state of { ({n: x.shape for n, x in saved.items()}) } does not fit one of {shapes}")
        if self.implementation == "reference":
            for i, tick in enumerate(self._ticks):
                tick.W[:], tick.b[:] = saved["W"][i], saved["b"][i]
        else:
            self._state = AuraState(**{name: jnp.asarray(x) for name, x in saved.items()})


@functools.cache
def _compiled(config: AuraConfig, implementation: str) -> Callable[..., tuple[AuraState, StepOut]]:
    """The step of a whole batch; kept, so that every runner of a configuration shares it."""
    step = AuraMemory(config).step if implementation == "xla" else functools.partial(pallas.step, config=config)
    return jax.jit(step, donate_argnums=1)


def _together(rows: list[StepOut]) -> StepOut:
    """The rows as one answer of arrays that later ticks leave alone."""
    out: dict[str, Any] = {}
    for name, values in zip(StepOut._fields, zip(*rows, strict=True), strict=True):
        kind = np.float32 if name in ("confidence", "gate", "surprise", "gate_loss") else None
        out[name] = None if values[0] is None else np.array(values, kind)
    return StepOut(**out)
