"""Loads a checkpoint of lerobot through lerobot's own classes, and says clearly what is wrong when it cannot."""

import difflib
import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlamem.core.spec import POSE_SIZE, ActionComponent, ActionSpec, SpecMismatchError, StateForm
from vlamem.policies.action_file import actions_of
from vlamem.policies.lerobot.network import (
    FAMILIES,
    device_of,
    first_line,
    load_network,
    network_class,
    without_compilation,
)
from vlamem.policies.lerobot.source import (
    LEFT_OUT,
    POSTPROCESSOR,
    PREPROCESSOR,
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    read_json,
)
from vlamem.policies.steering import LOWEST

READ_MORE = ("act", "diffusion", "multi_task_dit")
"""Types whose networks read, or stack, more than images, one state and a sentence where a checkpoint has it."""
CAMERA_MAY_BE_ABSENT = ("smolvla", "pi0", "pi05")
"""Types that mask the picture of a camera that is not there, or leave it out."""

_FAR = 1e6
log = logging.getLogger("vlamem.policies")


@dataclass(frozen=True)
class Parts:
    """What a checkpoint says without its weights, checked.

    Attributes:
        checkpoint: where it is.
        kind: its type, a key of FAMILIES.
        config: lerobot's configuration.
        meaning: of its actions.
        state: what its state means.
        images: the environment's camera by the network's image key.
        ensemble: coefficient of the temporal ensemble that it is to be played with; None without one.
        control_hz: rate [Hz]; 0 where it is not declared.
        preprocessor, postprocessor: lerobot's pipelines, with statistics for all that they normalise.
    """

    checkpoint: Checkpoint
    kind: str
    config: Any
    meaning: ActionSpec
    state: StateForm
    images: dict[str, str]
    ensemble: float | None
    control_hz: float
    preprocessor: Any
    postprocessor: Any


def read_parts(checkpoint: Checkpoint, actions: ActionSpec | None = None) -> Parts:
    """What a checkpoint says without its weights; raises CheckpointError for all that can be known to be wrong then."""
    from vlamem.policies.lerobot.bridge import image_keys

    kind = _kind(checkpoint)
    config = _configuration(checkpoint, kind)
    processors = [_processor_file(checkpoint, file) for file in (PREPROCESSOR, POSTPROCESSOR)]
    meaning = _meaning(checkpoint, config, actions)
    images = image_keys(config, checkpoint.cameras)
    without = [name for name, other in checkpoint.cameras.items() if other == LEFT_OUT]
    if without and kind not in CAMERA_MAY_BE_ABSENT:
        raise CheckpointError(
            f"camera '{without[0]}' of '{checkpoint.name}' cannot be left out: a {kind} reads all of its cameras, only "
            f"{', '.join(CAMERA_MAY_BE_ABSENT)} go on without one; name one that is there, ?camera.{without[0]}=OTHER"
        )
    ensemble, form = _ensemble(checkpoint, config), _state_form(checkpoint, config)
    hertz = _number(checkpoint.options, "hz", 0.0)
    pre, post = _processors(checkpoint, config, processors)
    return Parts(checkpoint, kind, config, meaning, form, images, ensemble, hertz, pre, post)


def load(name: str | Path | Checkpoint, actions: ActionSpec | None = None) -> Any:
    """The frozen policy in a checkpoint: a LeRobotPolicy.

    Args:
        name: a folder or hub id, with options as `find_checkpoint` reads them, or a checkpoint found already.
        actions: what its actions mean; else the option `actions`, else undeclared, which no suite accepts.

    Raises CheckpointError for a hub out of reach, an unknown type, missing or broken files, weights that are not the
    configuration's, an unknown tap, and actions of another size; ModuleNotFoundError without lerobot.
    """
    from vlamem.policies.lerobot.bridge import Bridge
    from vlamem.policies.lerobot.policy import LeRobotPolicy
    from vlamem.policies.lerobot.taps import parse_tap

    parts = read_parts(name if isinstance(name, Checkpoint) else find_checkpoint(str(name)), actions)
    checkpoint, config, kind, images = parts.checkpoint, parts.config, parts.kind, parts.images
    options = checkpoint.options
    network = load_network(checkpoint, config, kind)
    module, attribute, _ = FAMILIES[kind]
    family = getattr(importlib.import_module(f"vlamem.policies.lerobot.{module}"), attribute)(network)
    state = config.robot_state_feature
    shapes = {key: config.image_features[key].shape for key in images}
    sizes = {} if family.resizes else {key: (int(shape[1]), int(shape[2])) for key, shape in shapes.items()}
    bridge = Bridge(
        parts.preprocessor,
        parts.postprocessor,
        images,
        int(state.shape[0]) if state else 0,
        family.history,
        config.device,
        sizes,
    )
    tap = parse_tap(options.get("tap", family.tap), family.taps, network)
    lowest = _number(options, "lowest_start", LOWEST)
    policy = LeRobotPolicy(family, bridge, tap, lowest, parts.ensemble, injection=options.get("inject_at", ""))
    policy.weights = checkpoint.weights
    image_size = int(min((min(shape[1:]) for shape in shapes.values()), default=0))
    try:
        policy.describe(kind, parts.control_hz, parts.meaning, image_size, bridge.cameras, parts.state)
    except RuntimeError as error:
        raise CheckpointError(
            f"a first pass through '{checkpoint.name}' fails ({first_line(error)}): are its processors and weights of "
            "one checkpoint?"
        ) from error
    return policy


def preload(name: str | Path) -> None:
    """Imports what `load` needs for a checkpoint, and loads nothing. Raises what `load` raises for its type."""
    kind = _kind(find_checkpoint(str(name)))
    for module in ("bridge", "policy", "statistics", "taps", FAMILIES[kind][0]):
        importlib.import_module(f"vlamem.policies.lerobot.{module}")
    network_class(kind)


def _kind(checkpoint: Checkpoint) -> str:
    kind = checkpoint.config.get("type")
    if kind not in FAMILIES:
        near = difflib.get_close_matches(str(kind), FAMILIES, n=1, cutoff=0.6)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise CheckpointError(
            f"checkpoint '{checkpoint.name}' is of type {kind!r}{hint}: adapters exist for {', '.join(FAMILIES)}; "
            "any other policy can be given as package.module:FACTORY"
        )
    return str(kind)


def _configuration(checkpoint: Checkpoint, kind: str) -> Any:
    import lerobot.policies  # registers the configuration types
    from lerobot.configs import PreTrainedConfig

    try:
        config = PreTrainedConfig.from_pretrained(str(checkpoint.folder))
    except Exception as error:  # draccus raises errors of many types for a field that it does not know
        raise CheckpointError(
            f"the configuration of '{checkpoint.name}' is not one of lerobot {lerobot.__version__} "
            f"({first_line(error)}): save it again with this version"
        ) from error
    if config.action_feature is None:
        raise CheckpointError(f"the configuration of '{checkpoint.name}' has no 'action' among its output features")
    if not config.image_features:
        raise CheckpointError(f"the configuration of '{checkpoint.name}' has no image among its input features")
    device, backbone = checkpoint.options.get("device"), checkpoint.options.get("backbone")
    if device:
        config.device = device_of(device)
    other = [
        key
        for key, feature in config.input_features.items()
        if key != "observation.state" and key not in config.image_features
    ]
    if other and (kind in READ_MORE or config.input_features[other[0]].type.value == "ENV"):
        feature = config.input_features[other[0]]
        raise CheckpointError(
            f"checkpoint '{checkpoint.name}' reads '{other[0]}' ({feature.type.value.lower()}, {list(feature.shape)}): "
            "an observation here has images, one state and a sentence, so that it cannot be used; train one without "
            "this input"
        )
    without_compilation(checkpoint, config)
    if hasattr(config, "pretrained_backbone_weights"):
        config.pretrained_backbone_weights = None  # the checkpoint has them: nothing to download
    if backbone:
        if not Path(backbone).is_dir():
            raise CheckpointError(f"backbone '{backbone}' is no folder: expected the backbone's files on this machine")
        fields = [f for f in ("vlm_model_name", "vision_encoder_name", "text_encoder_name") if hasattr(config, f)]
        if not fields:
            raise CheckpointError(
                f"a checkpoint of type '{kind}' has no backbone of its own name: leave the option out"
            )
        for name in fields:
            setattr(config, name, backbone)
    return config


def _processor_file(checkpoint: Checkpoint, file: str) -> dict[str, Any]:
    path = checkpoint.folder / file
    mend = (
        "without it actions would be in wrong units; copy it from the training output, or for a checkpoint older than "
        "lerobot 0.4 run: python -m lerobot.processor.migrate_policy_normalization --pretrained-path FOLDER"
    )
    if not path.is_file():
        raise CheckpointError(f"'{checkpoint.name}' has no {file} (the processor with its normalisation): {mend}")
    body = read_json(path)
    for step in body.get("steps", []):
        state = step.get("state_file")
        if state and not (checkpoint.folder / state).is_file():
            raise CheckpointError(f"'{checkpoint.name}' lacks {state}, which {file} names (normalisation): {mend}")
        if state:
            try:
                with safe_open(str(checkpoint.folder / state), "np") as opened:
                    opened.keys()
            except SafetensorError as error:
                raise CheckpointError(
                    f"{state} of '{checkpoint.name}' is no whole file ({error}): copy or download it again"
                ) from error
    return body


def _meaning(checkpoint: Checkpoint, config: Any, given: ActionSpec | None) -> ActionSpec:
    size = int(config.action_feature.shape[0])
    named = checkpoint.options.get("actions")
    if given is None and named:
        try:
            given = actions_of(named)
        except SpecMismatchError as error:
            raise CheckpointError(str(error)) from error
    if given is None:
        component = ActionComponent("action", size, "undeclared", "undeclared", "undeclared", "undeclared", -_FAR, _FAR)
        return ActionSpec((component,))
    if given.size != size:
        parts = ", ".join(f"{c.name} {c.size}" for c in given.components)
        raise CheckpointError(
            f"checkpoint '{checkpoint.name}' gives {size} action entries, these actions have {given.size} ({parts}): "
            "choose a checkpoint made for this robot"
        )
    return given


def _processors(checkpoint: Checkpoint, config: Any, files: list[dict[str, Any]]) -> tuple[Any, Any]:
    from lerobot.policies.factory import make_pre_post_processors

    from vlamem.policies.lerobot.statistics import check_statistics, stored_types

    tokenizer = checkpoint.options.get("tokenizer", checkpoint.options.get("backbone"))
    own: dict[str, Any] = {"device_processor": {"device": config.device}}
    if tokenizer:
        own["tokenizer_processor"] = {"tokenizer_name": tokenizer}
    overrides = [
        {n: v for n, v in own.items() if n in {s.get("registry_name") for s in body.get("steps", [])}} for body in files
    ]
    overrides[1].pop("device_processor", None)  # actions come back to the processor
    try:
        pre, post = make_pre_post_processors(
            config,
            pretrained_path=str(checkpoint.folder),
            preprocessor_overrides=overrides[0],
            postprocessor_overrides=overrides[1],
        )
    except OSError as error:
        raise CheckpointError(
            f"a tokenizer that '{checkpoint.name}' names is not on this machine ({first_line(error)}): give its "
            "folder, e.g. ?tokenizer=FOLDER"
        ) from error
    except (ValueError, KeyError, ImportError, RuntimeError) as error:
        raise CheckpointError(
            f"the processors of '{checkpoint.name}' cannot be loaded ({first_line(error)}): save them again with "
            "this version of lerobot"
        ) from error
    for pipeline in (pre, post):
        _check_sizes(checkpoint, config, pipeline)
    stored = [stored_types(checkpoint, body) for body in files]
    check_statistics(checkpoint.name, config, (pre, post), (stored[0], stored[1]))
    return pre, post


def _check_sizes(checkpoint: Checkpoint, config: Any, pipeline: Any) -> None:
    """Raises CheckpointError when the processor normalises actions or states of another size than the network's."""
    for step in pipeline.steps:
        for name, tensor in step.state_dict().items():
            key = name.rpartition(".")[0]
            feature = {**config.output_features, **config.input_features}.get(key)
            if feature is None or len(feature.shape) != 1 or tensor.ndim != 1:
                continue
            if tensor.shape[0] not in (1, feature.shape[0]):
                raise CheckpointError(
                    f"the processor of '{checkpoint.name}' normalises {tensor.shape[0]} entries of '{key}', the "
                    f"network has {feature.shape[0]}: they are not of one checkpoint"
                )


def _state_form(checkpoint: Checkpoint, config: Any) -> StateForm:
    """What the state means, as declared: a checkpoint does not say."""
    named = checkpoint.options.get("state", "")
    feature = config.robot_state_feature
    size = int(feature.shape[0]) if feature else 0
    if named not in ("", "pose"):
        raise CheckpointError(
            f"unknown state '{named}': expected pose (position, unit quaternion w x y z, gripper opening), or leave "
            "the option out"
        )
    if named == "pose" and size != POSE_SIZE:
        raise CheckpointError(
            f"checkpoint '{checkpoint.name}' reads a state of {size} numbers, a pose has {POSE_SIZE} (position, unit "
            "quaternion w x y z, gripper opening): leave the option state out"
        )
    return "pose" if named == "pose" else ""


def _ensemble(checkpoint: Checkpoint, config: Any) -> float | None:
    """The coefficient of a temporal ensemble, unless it is to be left out."""
    asked = checkpoint.options.get("ensemble")
    coefficient = getattr(config, "temporal_ensemble_coeff", None)
    if asked not in (None, "none"):
        raise CheckpointError(f"option ensemble is '{asked}': expected none, to play the chunks as they are")
    if asked and coefficient is None:
        raise CheckpointError(f"'{checkpoint.name}' has no temporal ensemble: leave the option ensemble out")
    return None if asked else coefficient


def _number(options: dict[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError as error:
        raise CheckpointError(f"option {name} is '{options[name]}': expected a number") from error
