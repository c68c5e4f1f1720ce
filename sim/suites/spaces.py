"""The gymnasium spaces of every suite's environments, so that what runs on one runs on all."""

from collections.abc import Iterable

import gymnasium
import numpy as np


def observation_space(cameras: Iterable[str], image_size: int) -> gymnasium.spaces.Dict:
    """Images uint8 [image_size, image_size, 3] by camera, proprioception float32 [8] and the instruction."""
    image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
    return gymnasium.spaces.Dict(
        {
            **dict.fromkeys(cameras, image),
            "proprioception": gymnasium.spaces.Box(-2.0, 2.0, (8,), np.float32),
            "instruction": gymnasium.spaces.Text(200, charset="abcdefghijklmnopqrstuvwxyz ,"),
        }
    )


def action_space() -> gymnasium.spaces.Box:
    """[7] in [-1, 1], see OSC_POSE."""
    return gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
