"""What a checkpoint of lerobot is, what of it cannot be used, and what memory can do with it."""

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from vlamem.core.spec import BI_SO101, SO101
from vlamem.policies.lerobot.dataset_files import DatasetError, is_dataset, read_info
from vlamem.policies.lerobot.source import (
    POSTPROCESSOR,
    PREPROCESSOR,
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    read_json,
)

Status = Literal["ok", "undeclared", "refused"]

_SO101 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARMS = {
    "so101": tuple(f"{joint}.pos" for joint in _SO101),
    "bi_so101": tuple(f"{side}_{joint}.pos" for side in ("left", "right") for joint in _SO101),
}
"""Names of a dataset's action entries that say what the actions mean, by the option `actions` that declares it."""
_SIZES = {"so101": SO101.size, "bi_so101": BI_SO101.size}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: "undeclared" for what a checkpoint does not say and an option would; "refused" for what keeps it from
            being used.
        found: what is there.
        mend: what to do about it; empty when it is ok.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine_checkpoint(name: str, dataset: str | None = None) -> list[Finding]:
    """What a checkpoint is, and whether a dataset fits it.

    Configuration, processors and statistics are read first; weights are loaded only where nothing of these is refused.

    Args:
        name: a folder or hub id, with options as `vlamem.wrap` takes them.
        dataset: folder of a LeRobotDataset; it names the entries of state and action, and says the control rate.

    Raises CheckpointError for what is no checkpoint, DatasetError for a folder that is no dataset, and
    ModuleNotFoundError without lerobot.
    """
    checkpoint = find_checkpoint(name)
    info = _info(dataset) if dataset else {}
    found = [*_configured(checkpoint), *_statistics(checkpoint), *_recorded(info)]
    try:
        found += _usable(checkpoint, dataset, info)
    except (CheckpointError, DatasetError) as error:
        found.append(Finding("use", "refused", str(error), "mend what is named, then ask again"))
    return found


def _info(dataset: str) -> dict[str, Any]:
    if not is_dataset(dataset):
        raise DatasetError(f"{dataset} is no LeRobotDataset: expected a folder with meta/info.json")
    return read_info(Path(dataset))


def _configured(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Family, size and features, as the files say."""
    config = checkpoint.config
    yield Finding("family", "ok", str(config.get("type")))
    try:
        with safe_open(str(checkpoint.weights), "np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # no dictionary
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.weights} is no whole weights file ({error}): copy or download it again"
        ) from error
    size = f"{sum(map(math.prod, shapes)) / 1e6:.1f} million numbers, {checkpoint.weights.stat().st_size / 1e6:.1f} MB"
    yield Finding("size", "ok", size)
    for entry in ("input_features", "output_features"):
        features = config.get(entry)
        if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
            raise CheckpointError(f"config.json of {checkpoint.name} has no {entry}: save the checkpoint again")
        for key, feature in features.items():
            kind, shape = str(feature.get("type")).lower(), feature.get("shape")
            picture = kind == "visual" and isinstance(shape, list) and len(shape) == 3
            said = f"camera, {shape[1]} x {shape[2]} pixels" if picture else f"{kind}, {shape}"
            yield Finding(key, "ok", said)


def _statistics(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Names under which statistics are stored, and those of them that no feature has."""
    config = checkpoint.config
    features = {*config["input_features"], *config["output_features"]}
    for place, file in (("preprocessor", PREPROCESSOR), ("postprocessor", POSTPROCESSOR)):
        path = checkpoint.folder / file
        states = [s.get("state_file") for s in read_json(path).get("steps", [])] if path.is_file() else []
        stored: dict[str, list[str]] = {}
        for state in states:
            if not state or not (checkpoint.folder / state).is_file():
                continue  # named when the processors are read
            try:
                with safe_open(str(checkpoint.folder / state), "np") as opened:
                    for entry in opened.keys():  # noqa: SIM118  # no dictionary
                        key, _, statistic = entry.rpartition(".")
                        stored.setdefault(key, []).append(statistic)
            except SafetensorError as error:
                raise CheckpointError(
                    f"{state} of '{checkpoint.name}' is no whole file ({error}): copy or download it again"
                ) from error
        said = [f"{key} ({', '.join(sorted(names))})" for key, names in sorted(stored.items()) if key in features]
        yield Finding(f"statistics, {place}", "ok", "; ".join(said) or "none")
        inert = sorted(set(stored) - features)
        if inert:
            yield Finding(f"inert statistics, {place}", "ok", f"{', '.join(inert)}: no feature has this name")


def _recorded(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Names of entries and rate, as the dataset says."""
    for key in ("observation.state", "action"):
        if info:
            yield Finding(f"names, {key}", "ok", ", ".join(_names(info, key)) or "the dataset has none")
    if info:
        yield Finding("dataset", "ok", f"{info.get('total_episodes')} episodes at {info.get('fps')} Hz")


def _names(info: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names of a feature's entries: lerobot writes a list, or a list by the name of its axis."""
    names = info.get("features", {}).get(key, {}).get("names")
    if isinstance(names, dict):
        names = next((value for value in names.values() if isinstance(value, list)), None)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _usable(checkpoint: Checkpoint, dataset: str | None, info: Mapping[str, Any]) -> list[Finding]:
    """Taps, points and what memory can do; raises CheckpointError or DatasetError where it cannot be used."""
    from vlamem.policies.lerobot.loading import load

    options = dict(checkpoint.options)
    arm = next((arm for arm, names in ARMS.items() if _names(info, "action") == names), None)
    declared = options.get("actions") or arm
    if declared:
        options["actions"] = declared
    rate = info.get("fps")
    if isinstance(rate, int | float):
        options.setdefault("hz", f"{rate:g}")
    chosen = Checkpoint(checkpoint.name, checkpoint.folder, options, checkpoint.cameras)
    policy = load(chosen)
    spec, family = policy.spec, policy.family
    if dataset:
        from vlamem.policies.lerobot.dataset import DatasetReader

        DatasetReader(dataset).check(policy)
    memory = "recurrent memory; success memory, by a proposed chunk"
    context = f"a proposed context of {spec.context_size} numbers at {policy.injection}"
    found = [
        Finding("chunk", "ok", f"{spec.horizon} steps of {spec.action.size} entries"),
        Finding("observations at once", "ok", str(policy.history)),
        Finding("taps", "ok", f"{', '.join(family.taps)}; read at {policy.tap.name}"),
        Finding("injection points", "ok", f"{', '.join(family.points)}; used: {policy.injection}"),
        Finding("memory", "ok", f"{memory}; {context}"),
        Finding("control rate", "ok", f"{spec.control_hz:g} Hz")
        if spec.control_hz
        else Finding("control rate", "undeclared", "a checkpoint does not say", "add hz=RATE, or give its dataset"),
        Finding("actions", "ok", ", ".join(f"{c.name} {c.size} {c.mode} ({c.unit})" for c in spec.action.components))
        if declared
        else Finding(
            "actions",
            "undeclared",
            f"{spec.action.size} entries, a checkpoint does not say what they mean",
            f"add actions={_like(spec.action.size)}",
        ),
    ]
    name = shlex.quote(_named(chosen, declared or "my_arm.toml", f"{spec.control_hz or 30:g}"))
    command = f"vlamem serve --policy {name}"
    if dataset:
        command = f"vlamem fit {name} {shlex.quote(dataset)} --out gate.safetensors"
    return [*found, Finding("go on with", "ok", command)]


def _like(size: int) -> str:
    """Declarations that have as many entries, and a file for all others."""
    known = [name for name, entries in (("osc_pose", 7), *_SIZES.items()) if entries == size]
    return " or ".join([*known, "my_arm.toml"])


def _named(checkpoint: Checkpoint, actions: str, hertz: str) -> str:
    """The checkpoint's name with all of its options."""
    from vlamem.core.query import write_query

    cameras = {f"camera.{name}": other for name, other in checkpoint.cameras.items()}
    options = {**checkpoint.options, **cameras, "actions": actions, "hz": hertz}
    return checkpoint.name + "?" + write_query(list(options.items()))
