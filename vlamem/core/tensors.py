"""Safetensors files that are written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from vlamem.core.files import write_atomically


def write_tensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes NumPy arrays by name, and metadata, to `path`.

    Raises OSError, e.g. on a full disk, with what was there before as it was.
    """
    write_atomically(path, save(dict(arrays), dict(metadata)))
