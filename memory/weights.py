"""Memory weights on disk: safetensors with a JSON header that says which design they are, for whom, and how trained.

Needs NumPy alone, so that a robot without JAX loads the same file; `load_memory` needs JAX.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlamem.core.json_files import parse_json
from vlamem.core.spec import PolicySpec
from vlamem.core.tensors import TensorsError, read_tensors, write_tensors
from vlamem.memory.config import HeadConfig
from vlamem.memory.designs.registry import design, name_of

if TYPE_CHECKING:
    from vlamem.memory.protocol import Memory, Params

FORMAT = 2
_KEY = "vlamem"
_BASELINE_KEY = "vlamem-baseline"  # of version 0.1, which kept baselines apart
_BASELINE_GRU_HIDDEN = 64  # was not written into them

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class WeightsError(ValueError):
    """Weights that are broken, of another format, or made for another policy; the message names both sides."""


@dataclass(frozen=True)
class TrainedFor:
    """The policy whose features a memory was trained on.

    Attributes:
        policy: its name.
        fingerprint: of its PolicySpec; where the hash of the policy's weights is known it follows after a dash.
        normaliser: hash of its normaliser.
    """

    policy: str
    fingerprint: str
    normaliser: str


def identity(spec: PolicySpec, weights_sha256: str | None) -> TrainedFor:
    """What a memory's weights name as their policy: its spec, normaliser and, where known, the hash of its weights."""
    marks = [spec.fingerprint, *([weights_sha256[:16]] if weights_sha256 else [])]
    return TrainedFor(spec.name, "-".join(marks), spec.normaliser)


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself.

    Attributes:
        design: name of the memory's design, see vlamem.memory.designs.
        config: its sizes and options as JSON, which the design's `from_config` reads.
        trained_for: the policy that it belongs to.
        command: the training command.
        metrics: figures of the training run by name.
    """

    design: str
    config: Mapping[str, Any]
    trained_for: TrainedFor
    command: str
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, memory: "Memory", trained_for: TrainedFor, command: str, metrics: Mapping[str, float]) -> "Header":
        """The header of a memory's weights."""
        return cls(name_of(memory), memory.to_config(), trained_for, command, metrics)

    @property
    def feature_size(self) -> int:
        """D of the features that the memory reads."""
        return int(self.config["feature_size"])

    @property
    def head(self) -> HeadConfig:
        """What the memory proposes."""
        return HeadConfig.from_config(self.config["head"])


def save_weights(path: Path, header: Header, arrays: Mapping[str, Any]) -> None:
    """Writes `arrays` (parameters by dotted name, see `vlamem.memory.protocol.named_arrays`) and `header` to `path`.

    Whole or not at all: a full disk or a kill leaves what was there. Raises OSError for the former, ValueError for an
    array with NaN or infinity.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # scalars stay scalars
    for name, array in plain.items():
        if not np.isfinite(array).all():
            raise ValueError(f"parameter {name} is not finite: these weights are not worth saving, train again")
    meta = json.dumps({"format": FORMAT} | asdict(header), sort_keys=True)
    write_tensors(path, plain, {_KEY: meta})


def digest(arrays: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and values of parameters, 16 hexadecimal digits; what a header says is not in
    it."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        whole.update(f"{name}:{array.dtype.str}:{array.shape}".encode() + array.tobytes())
    return whole.hexdigest()[:16]


def load_weights(
    path: Path, used_with: TrainedFor | None = None, feature_size: int | None = None
) -> tuple[Header, Arrays]:
    """The header and the parameters by dotted name.

    A policy whose weights' hash is not known is compared by its spec and normaliser alone.

    Raises WeightsError when the file is no memory, when it was trained for another policy or normaliser than
    `used_with`, or for features of another size than `feature_size`; the message names both.
    """
    try:
        arrays, metadata = read_tensors(Path(path))
    except TensorsError as error:
        raise WeightsError(
            f"{path} is not a safetensors file that was written whole ({error}): copy it again, or train it anew"
        ) from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise WeightsError(
                f"parameter {name} of {path} is not finite: such a memory writes at random, train it again"
            )
    header = _header(path, metadata)
    if used_with is not None:
        _check_policy(path, header.trained_for, used_with)
    if feature_size is not None and feature_size != header.feature_size:
        raise WeightsError(
            f"feature size {feature_size} does not match this gate ({header.feature_size}): it was trained for "
            f"{header.trained_for.policy}; retrain with 'vlamem train-gate' or load that policy"
        )
    return header, arrays


def load_memory(path: Path, used_with: TrainedFor | None = None) -> "tuple[Header, Memory, Params]":
    """The header, the memory and its parameters in JAX.

    Raises WeightsError as `load_weights` does, and when the design does not know the file's settings or parameters.
    """
    from vlamem.memory.protocol import params_of

    header, arrays = load_weights(path, used_with)
    try:
        memory = design(header.design).from_config(header.config)
        return header, memory, params_of(memory, arrays)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit this version of its design: {error}") from error


def _check_policy(path: Path, made_for: TrainedFor, used_with: TrainedFor) -> None:
    mine, theirs = made_for.fingerprint, used_with.fingerprint
    if "-" not in theirs:
        mine = mine.partition("-")[0]
    for name, a, b in (("fingerprint", mine, theirs), ("normaliser", made_for.normaliser, used_with.normaliser)):
        if a != b:
            raise WeightsError(
                f"{path} was trained for policy {made_for.policy!r} ({name} {a}) but is used with "
                f"{used_with.policy!r} ({name} {b}): retrain with 'vlamem train-gate' or load that policy"
            )


def _header(path: Path, metadata: Mapping[str, str]) -> Header:
    """The header of this version's format, or of one of version 0.1: gates (format 1) and baselines."""
    try:
        return _read_header(path, metadata)
    except WeightsError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the header of {path} is damaged ({error!r}): copy it again, or train it anew") from error


def _read_header(path: Path, metadata: Mapping[str, str]) -> Header:
    if _KEY in metadata:
        body = parse_json(metadata[_KEY])
        if body.get("format") not in (1, FORMAT):
            raise WeightsError(f"{path} is not of format {FORMAT}: made by another version of vlamem, save it again")
        name, config, metrics = body.get("design", "aura"), body["config"], body["metrics"]
    elif _BASELINE_KEY in metadata:
        body = parse_json(metadata[_BASELINE_KEY])
        name, metrics = body["kind"], {}
        config = {"feature_size": body["feature_size"], "head": body["head"]}
        config |= {"hidden": _BASELINE_GRU_HIDDEN} if name == "gru" else {}
        config |= {"entries": body["horizon"]} if name == "kv_growing" else {}
    else:
        raise WeightsError(f"{path} carries no vlamem header: it is not a memory, or was saved by something else")
    return Header(name, config, TrainedFor(**body["trained_for"]), body["command"], metrics)
