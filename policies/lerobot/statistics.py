"""Whether processors normalise what they are asked to: lerobot passes what has no statistics as it is."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from vlamem.policies.lerobot.source import CheckpointError

_NEEDED = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
"""Statistics that a mode of normalisation reads."""
_LISTED = 6
"""Names of stored statistics in a message."""


def check_statistics(name: str, config: Any, preprocessor: Any, postprocessor: Any) -> None:
    """Raises CheckpointError naming the first feature that is to be normalised and has no statistics for it, or some
    that are not finite. A feature whose mode is identity needs none, and a deviation of 0 is allowed."""
    inputs = {key: f for key, f in config.input_features.items() if "empty_camera" not in key}  # never in a batch
    for where, pipeline, features in (
        ("preprocessor", preprocessor, {**inputs, **config.output_features}),
        ("postprocessor", postprocessor, dict(config.output_features)),
    ):
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
            broken = next((part for part in needed if not bool(torch.isfinite(stored[part]).all())), None)
            if broken is not None:
                entry = int(torch.isfinite(stored[broken].flatten()).logical_not().nonzero()[0, 0])
                raise CheckpointError(
                    f"the {where} of '{name}' normalises by '{broken}', whose entry {entry} is "
                    f"{float(stored[broken].flatten()[entry])}: compute the statistics of its data set again, without "
                    "the frames that are not finite, and save the checkpoint with them"
                )


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
