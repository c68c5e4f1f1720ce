"""Images as others give them, made uint8 [H, W, 3] RGB: the one form in which images are seen here."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

EXPECTED = "uint8 [H, W, 3], or channels first, or floating point from 0 to 1"
_WHITE = 255.0


class ImageError(ValueError):
    """Something that is no RGB image; the message names it, what was found and what was expected."""


def rgb(image: Any, name: str) -> UInt8[np.ndarray, "*rows H W 3"]:
    """An image, or a batch of them, as uint8 with the channels last.

    Channels are the last axis where that has three entries, else the third from the end. Floating-point values are from
    0 to 1. An image that is uint8 with channels last is given back as it is, without a copy.

    Raises ImageError, with `name` in the message, for another shape or type and for values outside 0 to 1.
    """
    array = np.asarray(image)
    found = f"{name} is {array.dtype} {list(array.shape)}"
    if array.ndim < 3 or 3 not in (array.shape[-1], array.shape[-3]):
        raise ImageError(f"{found}: expected {EXPECTED}")
    if array.shape[-1] != 3:
        array = np.moveaxis(array, -3, -1)
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"{found}: expected {EXPECTED}")
    low, high = float(array.min(initial=1.0)), float(array.max(initial=0.0))
    if not (low >= 0 and high <= 1):  # nan is neither
        raise ImageError(f"{found} with values from {low:g} to {high:g}: expected {EXPECTED}")
    return np.rint(array * _WHITE).astype(np.uint8)
