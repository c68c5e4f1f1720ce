"""Memory weights on disk: safetensors with a JSON header that says what they were trained for, and how.

Needs NumPy alone, so that a robot without JAX loads the same file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vlamem.core.spec import PolicySpec
from vlamem.core.tensors import write_tensors
from vlamem.memory.designs.aura.config import AuraConfig, HeadConfig

FORMAT = 1
_KEY = "vlamem"

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


class WeightsError(ValueError):
    """Weights that are broken, of another format, or made for another policy; the message names both sides."""


@dataclass(frozen=True)
class TrainedFor:
    """The policy whose features a memory was trained on.

    Attributes:
        policy: its name.
        fingerprint: of its PolicySpec.
        normaliser: hash of its normaliser.
    """

    policy: str
    fingerprint: str
    normaliser: str


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself.

    Attributes:
        config: sizes and gate.
        trained_for: the policy that it belongs to.
        command: the training command.
        metrics: figures of the training run by name.
    """

    config: AuraConfig
    trained_for: TrainedFor
    command: str
    metrics: Mapping[str, float]


def identity(spec: PolicySpec, weights_sha256: str | None) -> TrainedFor:
    """What a memory's weights name as their policy: its spec, normaliser and, where known, the hash of its weights."""
    marks = [spec.fingerprint, *([weights_sha256[:16]] if weights_sha256 else [])]
    return TrainedFor(spec.name, "-".join(marks), spec.normaliser)


def load_for(path: Path, used_with: TrainedFor) -> tuple[Header, Arrays]:
    """`load_weights` of a file for a policy; where the policy's own weights are unknown its spec must do.

    Raises WeightsError for one of another policy, spec, normaliser or, where both sides know it, other weights.
    """
    header, arrays = load_weights(path)
    made_for = header.trained_for.fingerprint
    if "-" not in used_with.fingerprint and made_for.partition("-")[0] == used_with.fingerprint:
        used_with = replace(used_with, fingerprint=made_for)
    _check_policy(path, header, used_with)
    return header, arrays


def save_weights(path: Path, header: Header, arrays: Mapping[str, Any]) -> None:
    """Writes `arrays` (parameters by dotted name, see `vlamem.memory.protocol.flatten`) and `header` to `path`.

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

    Raises WeightsError when the file is no memory, when it was trained for another policy or normaliser than
    `used_with`, or for features of another size than `feature_size`; the message names both.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            meta = (file.metadata() or {}).get(_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file ({error}): save it again") from error
    if meta is None:
        raise WeightsError(f"{path} carries no vlamem header: it is not a memory, or was saved by something else")
    header = _header(path, json.loads(meta))
    if used_with is not None:
        _check_policy(path, header, used_with)
    if feature_size is not None and feature_size != header.config.feature_size:
        raise WeightsError(
            f"feature size {feature_size} does not match this gate ({header.config.feature_size}): it was trained for "
            f"{header.trained_for.policy}; retrain with 'vlamem train-gate' or load that policy"
        )
    return header, arrays


def _check_policy(path: Path, header: Header, used_with: TrainedFor) -> None:
    for name, mine in asdict(header.trained_for).items():
        theirs = getattr(used_with, name)
        if name != "policy" and mine != theirs:
            raise WeightsError(
                f"{path} was trained for policy {header.trained_for.policy!r} ({name} {mine}) but is used with "
                f"{used_with.policy!r} ({name} {theirs}): retrain with 'vlamem train-gate' or load that policy"
            )


def _header(path: Path, meta: dict[str, Any]) -> Header:
    if meta.pop("format", None) != FORMAT:
        raise WeightsError(f"{path} is not of format {FORMAT}: made by another version of vlamem, save it again")
    config = dict(meta["config"])
    head = dict(config.pop("head"))
    if head.get("chunk") is not None:
        head["chunk"] = tuple(head["chunk"])
    for kind, given in ((HeadConfig, head), (AuraConfig, config)):
        known = [field.name for field in fields(kind)]
        for key in given.keys() - set(known):
            near = get_close_matches(key, known, 1, 0.0)[0]
            raise WeightsError(f"{path} has an unknown setting {key!r}, nearest known {near!r}: update vlamem")
    return Header(
        AuraConfig(**config, head=HeadConfig(**head)),
        TrainedFor(**meta["trained_for"]),
        meta["command"],
        meta["metrics"],
    )
