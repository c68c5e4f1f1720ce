"""Weights on disk: safetensors with a JSON header, whole or not at all.

The header tells the format version, the policy's spec and normaliser, the training command, the data and the metrics,
and carries a hash of the tensors, so that a truncated file or a changed byte is an error and never a strange policy.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.core.json_files import parse_json
from vlamem.core.tensors import TensorsError, read_tensors, write_tensors

FORMAT_VERSION = 1
_HEADER = "vlamem"
_LENGTH = 8


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file, what is wrong and the mend."""


def digest_of(tensors: Mapping[str, NDArray[Any]]) -> str:
    """sha256 of names, dtypes, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_weights(path: str | Path, tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Writes tensors and header to `path` in one atomic step; header must be JSON and have a `kind`.

    A disk that fills leaves the file that was there before.
    """
    path = Path(path)
    arrays = {name: np.ascontiguousarray(a) for name, a in tensors.items()}
    full = {"format_version": FORMAT_VERSION, "sha256": digest_of(arrays), **header}
    write_tensors(path, arrays, {_HEADER: json.dumps(full, sort_keys=True)})


def read_header(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """The JSON header of a weights file, without reading the tensors.

    Raises WeightsError when the file is missing, not one of ours, of another format version or another kind.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(_LENGTH)
            (length,) = struct.unpack("<Q", start) if len(start) == _LENGTH else (0,)
            raw = file.read(min(length, 64_000_000))
        if len(raw) != length or not length:
            raise WeightsError(f"{path} is truncated: fetch or train it again")
        header = dict(parse_json(parse_json(raw)["__metadata__"][_HEADER]))
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist: train it with 'vlamem pretrain --out {path}'") from error
    except WeightsError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no vlamem weights file: fetch or train it again") from error
    if header.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has weights format {header.get('format_version')!r}, this version reads {FORMAT_VERSION}: "
            "train it again"
        )
    if kind is not None and header.get("kind") != kind:
        raise WeightsError(f"{path} holds {header.get('kind')!r}, expected {kind!r}: give the right file")
    return header


def load_weights(path: str | Path, kind: str | None = None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and header of a weights file; raises WeightsError for anything but the file that was written."""
    header = read_header(path, kind)
    try:
        tensors, _ = read_tensors(Path(path))
    except TensorsError as error:
        raise WeightsError(f"{path} is truncated or damaged ({error}): fetch or train it again") from error
    found = digest_of(tensors)
    if found != header.get("sha256"):
        raise WeightsError(
            f"{path} has tensors of hash {found[:16]}, its header says {str(header.get('sha256'))[:16]}: the file was "
            "changed after it was written; fetch or train it again"
        )
    return dict(tensors), header
