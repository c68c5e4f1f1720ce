"""Rows of a store in SQLite, and the arrays in them."""

from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.episode import Outcome, Segment, checksum_of
from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.records import StoredSegment
from vlamem.memory.success.store.errors import SALVAGE, StoreDamagedError


def read_segment(row: tuple, layout: Layout, path: Path) -> StoredSegment:
    """A row of `SqliteStore.segments` with its arrays; raises StoreDamagedError when its checksum does not match."""
    sizes = (layout.key_size, layout.proprioception_size, layout.horizon * layout.action_size)
    if tuple(len(b) for b in row[6:9]) != tuple(4 * n for n in sizes):
        raise StoreDamagedError(f"{path}: segment {row[0]} has arrays of other sizes than its layout: {SALVAGE}")
    key, proprioception, chunk = (np.frombuffer(b, np.float32) for b in row[6:9])
    shaped = chunk.reshape(layout.horizon, layout.action_size)
    segment = Segment(int(row[4]), float(row[5]), key, proprioception, shaped)
    if checksum_of(row[14], segment.tick, segment.progress, *row[6:9]) != row[15] or row[3] not in get_args(Outcome):
        raise StoreDamagedError(f"{path}: segment {row[0]} is not what was written (checksum): {SALVAGE}")
    return StoredSegment(int(row[0]), int(row[1]), int(row[2]), row[3], segment, *row[9:14])


def blob(array: Float[np.ndarray, "..."]) -> bytes:
    """An array as it is stored."""
    return np.ascontiguousarray(array, np.float32).tobytes()
