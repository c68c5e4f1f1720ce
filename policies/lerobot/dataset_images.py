"""Pictures of a dataset's episode, decoded when they are asked for: an episode of two cameras fills no memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

Frames = UInt8[np.ndarray, "N H W 3"]


class DatasetImages:
    """One camera's pictures of an episode, uint8 [T, H, W, 3]; an index decodes what it asks for, each picture once.

    It stands for an array in an Observation, and can be indexed, measured and made one.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[Sequence[int]], Frames], length: int) -> None:
        """`read` decodes the pictures of some control steps of the episode, which has `length` of them."""
        self._read, self._length = read, length

    def __len__(self) -> int:
        return self._length

    @property
    def shape(self) -> tuple[int, ...]:
        """[T, H, W, 3]."""
        return (self._length, *self[0].shape)

    def __getitem__(self, index: Any) -> Any:
        """Pictures of control steps: a number, a slice, or an array of them of any shape. Raises IndexError."""
        at = np.arange(self._length)[index]
        steps, place = np.unique(at, return_inverse=True)
        if not len(steps):
            return np.zeros((*at.shape, *self[0].shape), np.uint8)
        return self._read(steps.tolist())[place.reshape(np.shape(at))]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
