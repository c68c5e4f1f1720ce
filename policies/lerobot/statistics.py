"""Whether processors normalise what they are asked to: lerobot passes what has no statistics as it is."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open

from vlamem.policies.lerobot.source import Checkpoint, CheckpointError

_NEEDED = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""Statistics that a mode of normalisation reads."""
_LISTED = 6
"""Names of stored statistics in a message."""


def stored_types(checkpoint: Checkpoint, processor: Mapping[str, Any]) -> dict[str, str]:
    """Type of each statistic in the files that a processor's JSON names, e.g. "F32" of "action.mean"."""
    found: dict[str, str] = {}
    for step in processor.get("steps", []):
        if state := step.get("state_file"):
            with safe_open(str(checkpoint.folder / state), "np") as file:
                found |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # no dictionary
    return found


def check_statistics(
    name: str, config: Any, pipelines: tuple[Any, Any], types: tuple[Mapping[str, str], Mapping[str, str]]
) -> None:
    """Raises CheckpointError naming the first feature that is to be normalised and has no statistics that do so.

    `pipelines` are pre- and postprocessor, `types` those of their stored statistics. Refused are statistics that are
    missing or under another name, not finite, of whole numbers, or without width in any entry. A feature whose mode is
    identity needs none, and a width of 0 in some entries is allowed.
    """
    inputs = {key: f for key, f in config.input_features.items() if "empty_camera" not in key}  # never in a batch
    places = (("preprocessor", {**inputs, **config.output_features}), ("postprocessor", dict(config.output_features)))
    for (where, features), pipeline, kinds in zip(places, pipelines, types, strict=True):
        steps = _normalisers(pipeline)
        stored = {key: tensor for step in steps for key, tensor in step.state_dict().items()}
        for key, mode in _normalised(config, steps, features):
            needed = [f"{key}.{statistic}" for statistic in _NEEDED.get(mode, ())]
            listed = features[key].type.value == "ACTION" or any(key in step.features for step in steps)
            missing = [part for part in needed if part not in stored or not listed]
            if missing:
                there = sorted({entry.rpartition(".")[0] for entry in stored})
                raise CheckpointError(
                    f"the {where} of '{name}' normalises '{key}' by {mode} and has no '{missing[0]}': without it "
                    f"'{key}' would pass as it is; it has statistics of {', '.join(there[:_LISTED]) or 'nothing'}. "
                    "Save the checkpoint again with the statistics of its data set under the features' own names: "
                    "make_pre_post_processors(config, dataset_stats=dataset.meta.stats)"
                )
            for part in needed:
                _check_numbers(f"the {where} of '{name}' normalises by '{part}'", stored[part], kinds.get(part, "F32"))
            if needed and not _has_width(mode, [stored[part] for part in needed]):
                raise CheckpointError(
                    f"the {where} of '{name}' normalises '{key}' by {mode}, and {' and '.join(needed)} leave it no "
                    "width in any entry: compute the statistics over all frames of its data set, and save the "
                    "checkpoint with them"
                )


def _check_numbers(says: str, statistic: torch.Tensor, kind: str) -> None:
    """Raises CheckpointError for a statistic that is not finite, and for one of whole numbers."""
    if not kind.startswith(("F", "BF")):
        raise CheckpointError(
            f"{says}, which is stored as whole numbers ({kind}): what is behind the point was lost; compute the "
            "statistics of its data set again as float32, and save the checkpoint with them"
        )
    broken = torch.isfinite(statistic.flatten()).logical_not().nonzero()
    if len(broken):
        entry = int(broken[0, 0])
        raise CheckpointError(
            f"{says}, whose entry {entry} is {float(statistic.flatten()[entry])}: compute the statistics of its data "
            "set again, without the frames that are not finite, and save the checkpoint with them"
        )


def _has_width(mode: str, statistics: list[torch.Tensor]) -> bool:
    """Whether some entry is divided by more than 0."""
    first, second = statistics
    return bool((second if mode == "MEAN_STD" else second - first).abs().any())


def _normalisers(pipeline: Any) -> list[Any]:
    from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep

    return [step for step in pipeline.steps if isinstance(step, NormalizerProcessorStep | UnnormalizerProcessorStep)]


def _normalised(config: Any, steps: list[Any], features: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Features that are not passed as they are, and how: as the processor says, else as the configuration does."""
    for key, feature in features.items():
        modes = []
        for step in steps:
            only = step.normalize_observation_keys
            if feature.type.value == "ACTION" or only is None or key in only:
                modes.append(step.norm_map.get(feature.type))
        if not steps:
            modes.append(config.normalization_mapping.get(feature.type.value))
        yield from ((key, mode.value) for mode in modes[:1] if mode is not None and mode.value != "IDENTITY")
