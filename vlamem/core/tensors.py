"""Safetensors files that are written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from vlamem.core.files import write_atomically


def write_tensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes NumPy arrays by name, and metadata, to `path`.

    Raises OSError, e.g. on a full disk, with what was there before as it was.
    """
    # safetensors writes an array's memory as it lies; np.ascontiguousarray would make [1] of a 0-d array
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, save(whole, dict(metadata)))
