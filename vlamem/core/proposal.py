"""What a memory proposes to a frozen policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_Array = np.ndarray[Any, Any]
Weights = Float[np.ndarray, "B"] | Sequence[float]
"""One value for each row."""


@dataclass(frozen=True)
class Proposal:
    """What a memory proposes for the next action chunk, one row per environment.

    A chunk picks a mode of the frozen sampler: it enters at flow time 1 - weight. A context tells the policy what the
    frame does not show: it is added to the policy's conditioning, multiplied by its weight. Each has a weight of its
    own. An offset corrects what the sampler gives: it is added to the finished chunk, where the same error is made
    everywhere. A row whose weights are both 0 and whose offset is 0 abstains, and the policy answers it as if there
    were no memory, bit for bit.

    Attributes:
        chunk: [B, H, A] in the policy's normalised action space, or None.
        chunk_weight: [B], 0 to 1; 0 everywhere where chunk is None.
        context: [B, C], a residual at the policy's injection point, or None.
        context_weight: [B], 0 to 1; 0 everywhere where context is None.
        offset: [B, H, A], added to the chunk that the sampler gives, in its units, or None.

    Raises ValueError for weights outside 0 to 1 or of another number of rows, and for entries that are NaN.
    """

    chunk: Float[np.ndarray, "B H A"] | None
    chunk_weight: Float[np.ndarray, "B"]
    context: Float[np.ndarray, "B C"] | None
    context_weight: Float[np.ndarray, "B"]
    offset: Float[np.ndarray, "B H A"] | None = None

    def __post_init__(self) -> None:
        for name, proposed, weight in (
            ("chunk", self.chunk, self.chunk_weight),
            ("context", self.context, self.context_weight),
        ):
            if weight.ndim != 1 or not ((weight >= 0) & (weight <= 1)).all():
                raise ValueError(f"{name}_weight {weight!r}: expected one value in 0..1 for each row")
            if proposed is not None and len(proposed) != len(weight):
                raise ValueError(f"a proposed {name} of {len(proposed)} rows has {len(weight)} weights")
            if proposed is None and weight.any():
                raise ValueError(f"{name}_weight is {weight!r} and no {name} is proposed: expected zeros")
            if proposed is not None and np.isnan(proposed).any():
                raise ValueError(f"proposed {name} has NaN entries: a memory that knows nothing proposes weight 0")
        if self.offset is not None:
            if len(self.offset) != len(self.chunk_weight):
                raise ValueError(f"a proposed offset of {len(self.offset)} rows for {len(self.chunk_weight)} rows")
            if not np.isfinite(self.offset).all():
                raise ValueError("proposed offset has entries that are not finite: a memory that knows none gives None")
        if len(self.chunk_weight) != len(self.context_weight):
            raise ValueError(f"{len(self.chunk_weight)} chunk weights and {len(self.context_weight)} context weights")

    @classmethod
    def of_chunk(cls, chunk: Float[np.ndarray, "B H A"] | None, weight: Weights) -> "Proposal":
        """A proposal of chunks alone; of nothing when `chunk` is None."""
        weight = np.asarray(weight, np.float32)
        return cls(chunk, weight if chunk is not None else np.zeros_like(weight), None, np.zeros_like(weight))

    @classmethod
    def of_context(cls, context: Float[np.ndarray, "B C"] | None, weight: Weights) -> "Proposal":
        """A proposal of contexts alone; of nothing when `context` is None."""
        weight = np.asarray(weight, np.float32)
        return cls(None, np.zeros_like(weight), context, weight if context is not None else np.zeros_like(weight))

    @classmethod
    def of_offset(cls, offset: Float[np.ndarray, "B H A"]) -> "Proposal":
        """A proposal of offsets alone."""
        none = np.zeros(len(offset), np.float32)
        return cls(None, none, None, none, np.asarray(offset, np.float32))

    @property
    def weight(self) -> Float[np.ndarray, "B"]:
        """The larger weight of each row, 1 where an offset is added whole; 0 where it abstains."""
        larger: Float[np.ndarray, B] = np.maximum(self.chunk_weight, self.context_weight)
        return larger if self.offset is None else np.where(self.offset.any(axis=(1, 2)), np.float32(1), larger)

    @property
    def abstains(self) -> bool:
        """Whether every row does."""
        return not self.weight.any()

    def __len__(self) -> int:
        return len(self.chunk_weight)

    def rows(self, index: Sequence[int] | Int[np.ndarray, "S"]) -> "Proposal":
        """The part for some of its rows, in the order given."""
        at = np.asarray(index, np.int64)
        return Proposal(
            None if self.chunk is None else self.chunk[at],
            self.chunk_weight[at],
            None if self.context is None else self.context[at],
            self.context_weight[at],
            None if self.offset is None else self.offset[at],
        )

    def check(self, rows: int, chunk: tuple[int, int], context: int) -> None:
        """Raises ValueError when it is not for `rows` rows of chunks (H, A) and contexts of size C; names both."""
        expected = {"chunk": (rows, *chunk), "context": (rows, context), "offset": (rows, *chunk)}
        for name, shape in expected.items():
            proposed: _Array | None = getattr(self, name)
            if proposed is not None and proposed.shape != shape:
                raise ValueError(f"proposed {name} is {list(proposed.shape)}, expected {list(shape)}")
        if len(self) != rows:
            raise ValueError(f"the proposal has {len(self)} rows, expected {rows}")
