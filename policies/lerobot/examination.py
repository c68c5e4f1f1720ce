"""What a checkpoint of lerobot is, what of it cannot be used, and what memory can do with it."""

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlamem.core.check import Check
from vlamem.policies.action_file import ACTIONS
from vlamem.policies.lerobot.dataset_files import DatasetError, is_dataset, read_info
from vlamem.policies.lerobot.source import (
    POSTPROCESSOR,
    PREPROCESSOR,
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    read_json,
)

_SO101 = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ARMS = {
    "so101": tuple(f"{joint}.pos" for joint in _SO101),
    "bi_so101": tuple(f"{side}_{joint}.pos" for side in ("left", "right") for joint in _SO101),
}
"""Names of a dataset's action entries that say what the actions mean, by the option `actions` that declares it."""


def examine_checkpoint(name: str, dataset: str | None = None) -> list[Check]:
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
        found.append(Check("use", "refused", str(error), "mend what is named, then ask again"))
    return found


def _info(dataset: str) -> dict[str, Any]:
    if not is_dataset(dataset):
        raise DatasetError(f"{dataset} is no LeRobotDataset: expected a folder with meta/info.json")
    return read_info(Path(dataset))


def _configured(checkpoint: Checkpoint) -> Iterator[Check]:
    """Family, size and features, as the files say."""
    config = checkpoint.config
    yield Check("family", "ok", str(config.get("type")))
    try:
        with safe_open(str(checkpoint.weights), "np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  # no dictionary
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.weights} is no whole weights file ({error}): copy or download it again"
        ) from error
    size = f"{sum(map(math.prod, shapes)) / 1e6:.1f} million numbers, {checkpoint.weights.stat().st_size / 1e6:.1f} MB"
    yield Check("size", "ok", size)
    for entry in ("input_features", "output_features"):
        features = config.get(entry)
        if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
            raise CheckpointError(f"config.json of {checkpoint.name} has no {entry}: save the checkpoint again")
        for key, feature in features.items():
            kind, shape = str(feature.get("type")).lower(), feature.get("shape")
            picture = kind == "visual" and isinstance(shape, list) and len(shape) == 3
            said = f"camera, {shape[1]} x {shape[2]} pixels" if picture else f"{kind}, {shape}"
            yield Check(key, "ok", said)


def _statistics(checkpoint: Checkpoint) -> Iterator[Check]:
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
        yield Check(f"statistics, {place}", "ok", "; ".join(said) or "none")
        inert = sorted(set(stored) - features)
        if inert:
            yield Check(f"inert statistics, {place}", "ok", f"{', '.join(inert)}: no feature has this name")


def _recorded(info: Mapping[str, Any]) -> Iterator[Check]:
    """Names of entries and rate, as the dataset says."""
    for key in ("observation.state", "action"):
        if info:
            yield Check(f"names, {key}", "ok", ", ".join(_names(info, key)) or "the dataset has none")
    if info:
        yield Check("dataset", "ok", f"{info.get('total_episodes')} episodes at {info.get('fps')} Hz")


def _names(info: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names of a feature's entries: lerobot writes a list, or a list by the name of its axis."""
    names = info.get("features", {}).get(key, {}).get("names")
    if isinstance(names, dict):
        names = next((value for value in names.values() if isinstance(value, list)), None)
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _usable(checkpoint: Checkpoint, dataset: str | None, info: Mapping[str, Any]) -> list[Check]:
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
        Check("chunk", "ok", f"{spec.horizon} steps of {spec.action.size} entries"),
        Check("observations at once", "ok", str(policy.history)),
        Check("taps", "ok", f"{', '.join(family.taps)}; read at {policy.tap.name}"),
        Check("injection points", "ok", f"{', '.join(family.points)}; used: {policy.injection}"),
        Check("memory", "ok", f"{memory}; {context}"),
        Check("control rate", "ok", f"{spec.control_hz:g} Hz")
        if spec.control_hz
        else Check("control rate", "undeclared", "a checkpoint does not say", "add hz=RATE, or give its dataset"),
        Check("actions", "ok", ", ".join(f"{c.name} {c.size} {c.mode} ({c.unit})" for c in spec.action.components))
        if declared
        else Check(
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
    return [*found, Check("go on with", "ok", command)]


def _like(size: int) -> str:
    """Declarations that have as many entries, and a file for all others."""
    known = [name for name, spec in ACTIONS.items() if spec.size == size]
    return " or ".join([*known, "my_arm.toml"])


def _named(checkpoint: Checkpoint, actions: str, hertz: str) -> str:
    """The checkpoint's name with all of its options."""
    from vlamem.core.query import write_query

    cameras = {f"camera.{name}": other for name, other in checkpoint.cameras.items()}
    options = {**checkpoint.options, **cameras, "actions": actions, "hz": hertz}
    return checkpoint.name + "?" + write_query(list(options.items()))
