"""Safetensors files that are written whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save


def write_tensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes NumPy arrays by name, and metadata, beside `path` and names them so.

    Raises OSError, e.g. on a full disk, with what was there before as it was.
    """
    content = save(dict(arrays), dict(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else power loss might leave the new name without what it stands for
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
