"""B rows of AURA-Mem in NumPy, each a tick of its own: quicker than one jitted call up to some sixteen rows."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.memory.designs.aura.config import AuraConfig
from vlamem.memory.designs.aura.reference import AuraTick
from vlamem.memory.runner import State, stack_rows
from vlamem.memory.step_out import StepOut

TICKED = ("learned", "counterfactual", "always", "never")
"""Gates that the NumPy tick runs; the other gates are controls of benchmarks and run in JAX."""


class AuraRows:
    """AuraTick for each of B rows; W and b are the whole state of a row."""

    def __init__(self, config: AuraConfig, arrays: Mapping[str, np.ndarray], rows: int) -> None:
        """Raises ValueError for a gate that has no NumPy tick."""
        self.feature_size, self.context_size = config.feature_size, config.head.context
        self.chunk_shape = config.head.chunk
        plain = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        self._ticks = [AuraTick(config, plain) for _ in range(rows)]

    def reset(self, mask: Bool[np.ndarray, "B"]) -> None:
        """Back to the empty state in the masked rows."""
        for row in np.flatnonzero(mask):
            self._ticks[row].reset()

    def step(self, features: Float[np.ndarray, "R D"], rows: Int[np.ndarray, "R"]) -> StepOut:
        """One control step of `rows`."""
        outs = []
        for row, feature in zip(rows, features, strict=True):
            out = self._ticks[row].tick(np.asarray(feature, np.float32))
            # a tick's arrays are views that the next one overwrites
            outs.append(
                StepOut(
                    out.confidence,
                    _copy(out.chunk),
                    _copy(out.context),
                    None,
                    out.wrote,
                    out.gate,
                    out.surprise,
                    out.refused,
                    np.float32(0),
                )
            )
        return stack_rows(outs)

    def state(self, row: int) -> State:
        """A copy of W and b."""
        return {"W": self._ticks[row].W.copy(), "b": self._ticks[row].b.copy()}

    def restore(self, row: int, state: Mapping[str, np.ndarray]) -> None:
        """Makes W and b those of `state`."""
        self._ticks[row].W[:], self._ticks[row].b[:] = state["W"], state["b"]


def _copy(x: np.ndarray | None) -> np.ndarray | None:
    return None if x is None else x.copy()
