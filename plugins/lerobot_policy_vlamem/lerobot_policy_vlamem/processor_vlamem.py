"""Processors around a vlamem policy: none of its own, since the frozen policy brings its normalisation with it."""

from typing import Any

import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    RenameObservationsProcessorStep,
    make_policy_processor_pipelines,
)

from lerobot_policy_vlamem.configuration_vlamem import VlamemConfig


def make_vlamem_pre_post_processors(
    config: VlamemConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[Any, Any]:
    """Renaming and a batch axis on the way in, nothing on the way out; statistics are the frozen policy's own."""
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep("cpu"),
    ]
    return make_policy_processor_pipelines(input_steps=before, output_steps=[DeviceProcessorStep("cpu")])
