"""LeRobot's policies as frozen policies: SmolVLA, pi0, pi0.5, multi-task DiT, Diffusion and ACT.

`load` takes a folder written by `save_pretrained` or a hub id. What it returns satisfies FrozenPolicy; its chunks are
in the units that the environment takes, after the checkpoint's own post-processor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlamem.policies.lerobot.loading import load
    from vlamem.policies.lerobot.policy import LeRobotPolicy
    from vlamem.policies.lerobot.source import Checkpoint, CheckpointError, find_checkpoint, is_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "LeRobotPolicy", "find_checkpoint", "is_checkpoint", "load"]

_HOMES = {"load": "loading", "LeRobotPolicy": "policy"}


def __getattr__(name: str) -> Any:
    """Names are loaded when first asked for: finding a checkpoint needs neither torch nor lerobot."""
    if name in __all__:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'source')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
