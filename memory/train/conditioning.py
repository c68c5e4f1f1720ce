"""What a frozen policy read at some ticks of recorded demonstrations, kept beside their features.

A folder `conditioning` in a recording of `vlamem.memory.train.features`, with one NumPy file an episode: a row a tick.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vlamem.core.arrays import load_array, save_array
from vlamem.memory.train.features import FeatureEpisode, FeaturesError

__all__ = ["Conditioned", "read_conditioning", "write_conditioning"]


class Conditioned(NamedTuple):
    """Rows of one episode, N of them.

    Attributes:
        tick: [N], within the episode, rising.
        disagreement: [N], how much the bare policy's own samples disagree there.
        packed: [N, S], float16, what the policy read beside z and the instruction.
    """

    tick: Int[np.ndarray, "N"]
    disagreement: Float[np.ndarray, "N"]
    packed: Float[np.ndarray, "N S"]


def write_conditioning(folder: Path, task: str, episode: int, actor: str, rows: Conditioned) -> None:
    """Writes an episode's rows, whole or not at all; to be called before its features are added.

    Raises ValueError for columns of unequal length and numbers that are not finite.
    """
    count = len(rows.tick)
    if not count or rows.disagreement.shape != (count,) or len(rows.packed) != count:
        raise ValueError(
            f"{count} ticks, {rows.disagreement.shape} disagreements, {rows.packed.shape} rows: expected one of each"
        )
    if not (np.isfinite(rows.packed).all() and np.isfinite(rows.disagreement).all()):
        raise ValueError(f"conditioning of episode {episode} of {task!r} is not finite: this policy cannot be recorded")
    table = np.zeros(count, _kind(rows.packed.shape[1]))
    for name, column in rows._asdict().items():
        table[name] = column
    save_array(_path(folder, task, episode, actor), table)


def read_conditioning(folder: Path, episode: FeatureEpisode) -> Conditioned:
    """The rows of an episode, memory-mapped. Raises FeaturesError where they are missing or of another episode."""
    path = _path(folder, episode.task, episode.episode, episode.actor)
    try:
        table = load_array(path, mapped=True)
        rows = Conditioned(*(table[name] for name in Conditioned._fields))
    except (ValueError, KeyError, IndexError) as error:
        raise FeaturesError(
            f"{path} holds no conditioning ({error}): record it with 'vlamem collect --features --conditioning'"
        ) from error
    if not len(rows.tick) or rows.tick[-1] >= episode.ticks:
        raise FeaturesError(f"{path} is of an episode of other length than {episode.ticks} ticks: record again")
    return rows


def _kind(size: int) -> np.dtype:
    return np.dtype([("tick", np.int32), ("disagreement", np.float32), ("packed", np.float16, (size,))])


def _path(folder: Path, task: str, episode: int, actor: str) -> Path:
    return folder / "conditioning" / f"{task}-{episode}-{actor}.npy"
