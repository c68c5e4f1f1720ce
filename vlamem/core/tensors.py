"""Safetensors files that are written whole or not at all, with a hash of all that is in them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vlamem.core.files import write_atomically
from vlamem.core.json_files import parse_json

_HASH, _HASHED = "sha256", "hashed"
"""Entries of the metadata: the hash, and that there is one, so that a damaged name does not make a file without."""


class TensorsError(ValueError):
    """A file that is no safetensors file, or not what was written; the message names it."""


def write_tensors(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Writes NumPy arrays by name, and metadata, to `path`.

    Raises OSError, e.g. on a full disk, with what was there before as it was.
    """
    # safetensors writes an array's memory as it lies; np.ascontiguousarray would make [1] of a 0-d array
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, _in_order(save(whole, dict(metadata) | {_HASH: _hash_of(whole, metadata), _HASHED: _HASH})))


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays by name and the metadata; a file without a hash, of version 0.1 or another program, as it is.

    Raises TensorsError for what is no safetensors file or has another hash than its own, OSError for what cannot be
    read.
    """
    raw = path.read_bytes()
    try:
        arrays = load(raw)
        header = parse_json(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise TensorsError(f"{path} is no whole safetensors file ({error})") from error
    known, hashed = metadata.pop(_HASH, None), metadata.pop(_HASHED, None)
    if (known is None) != (hashed is None) or (known is not None and known != _hash_of(arrays, metadata)):
        raise TensorsError(f"{path} is not what was written (its hash is another): the medium has changed it")
    return arrays, metadata


def _in_order(raw: bytes) -> bytes:
    """A safetensors file with its metadata in order: safetensors 0.8 writes them in another one each time, and what was
    made twice alike is to be the same file."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + raw[end:]


def _hash_of(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        found.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
