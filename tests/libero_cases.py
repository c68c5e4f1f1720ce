"""What tests of LIBERO share: whether the benchmark is here, and recorded frames of one of its tasks."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vlamem.core.seeding import stream
from vlamem.policies.tiny.frames import FramesMeta, FramesWriter, Goal
from vlamem.sim.suites.libero.assets import LiberoMissingError, find_paths
from vlamem.sim.suites.libero.catalogue import sentence

TASKS = ("pick_up_the_milk_and_place_it_in_the_basket", "pick_up_the_butter_and_place_it_in_the_basket")
"""Two of libero_object."""


def installed() -> bool:
    """Whether the benchmark, its meshes, a simulator and torch are."""
    try:
        find_paths()
    except LiberoMissingError:
        return False
    return importlib.util.find_spec("torch") is not None and importlib.util.find_spec("robosuite") is not None


needs_libero = pytest.mark.skipif(not installed(), reason="the LIBERO benchmark is not installed: make libero")


def frames(folder: Path, episodes: int = 2, size: int = 16) -> Path:
    """Frames of TASKS whose pictures are noise, every third of 19 ticks, without privileged labels."""
    meta = FramesMeta(TASKS, tuple(Goal(t, (sentence(t),)) for t in TASKS), image_size=size, horizon=4)
    rows = 7
    with FramesWriter(folder, meta) as writer:
        for task in range(len(TASKS)):
            for episode in range(episodes):
                draw = stream(0, "frames", task, episode)
                empty = {name: np.zeros((rows, *shape), kind) for name, (kind, shape) in meta.columns().items()}
                writer.add_episode(
                    empty
                    | {c: draw.integers(0, 256, (rows, size, size, 3), dtype=np.uint8) for c in meta.cameras}
                    | {
                        "goal": np.tile(np.array([task, -1], np.int32), (rows, 1)),
                        "episode": np.full(rows, episode, np.int32),
                        "tick": np.arange(0, 3 * rows, 3, dtype=np.int32),
                        "task": np.full(rows, task, np.int16),
                    }
                )
    return folder
