"""What a checkpoint of lerobot makes of an observation: its network's inputs, and a feature that is read when asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.observation import Encoding, Observation, Rows


@dataclass(frozen=True)
class Inputs:
    """What `sample` needs of an observation.

    Attributes:
        observation: itself; without images where `seen` is there.
        batch: the preprocessor's output.
        seen: what the network's vision put out, [B, n, ...] each, in place of the batch's pictures; empty where these
            are to be looked at.
    """

    observation: Observation
    batch: dict[str, Any]
    seen: tuple[Tensor, ...] = ()

    def rows(self, index: Rows) -> "Inputs":
        """The part for some of its rows; entries of the batch that are not row-wise stay."""
        at, count = [int(i) for i in index], len(self.observation)

        def part(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[at] if value.ndim and len(value) == count else value
            return [value[i] for i in at] if isinstance(value, list) and len(value) == count else value

        batch = {name: part(value) for name, value in self.batch.items()}
        return Inputs(self.observation.rows(index), batch, tuple(rows[at] for rows in self.seen))


class TapEncoding(Encoding):
    """An encoding whose feature is read when first asked for, or noted in the pass of a plan.

    Without a memory no pass is made for it; pooling what the plan's own pass puts out at the tap is all that it costs.
    """

    def __init__(self, make: Callable[[], tuple[NDArray[np.float32], NDArray[np.float32]]], context: Inputs) -> None:
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_made", None)
        object.__setattr__(self, "context", context)

    @property
    def made(self) -> bool:
        """Whether the feature is known."""
        return self._made is not None  # type: ignore[attr-defined]  # set around the dataclass being frozen

    def fill(self, features: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
        """Sets z and key, read in a pass that was made anyway."""
        object.__setattr__(self, "_made", features)

    @property
    def z(self) -> NDArray[np.float32]:
        """[B, D]: the tap, pooled, beside the normalised state."""
        return self._features()[0]

    @property
    def key(self) -> NDArray[np.float32]:
        """[B, K], unit length: the tap alone."""
        return self._features()[1]

    def rows(self, index: Rows) -> Encoding:
        """The part for some of its rows; read where the whole is asked for its feature, if it has not been yet."""
        part = self.context.rows(index)
        at = np.asarray(index, np.int64)
        return TapEncoding(lambda: (self.z[at], self.key[at]), part)

    def _features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not self.made:
            self.fill(self._make())  # type: ignore[attr-defined]  # likewise
        features: tuple[NDArray[np.float32], NDArray[np.float32]] = self._made  # type: ignore[attr-defined]  # likewise
        return features
