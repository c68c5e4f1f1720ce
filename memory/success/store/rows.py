"""Rows of a store in SQLite, and the arrays in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.episode import Outcome, Segment, checksum_of
from vlamem.memory.success.experience.layout import Layout
from vlamem.memory.success.experience.records import SegmentColumns, StoredSegment
from vlamem.memory.success.store.errors import SALVAGE, StoreDamagedError

SEGMENT_ROWS = (
    "SELECT s.id, s.episode, e.instruction, e.outcome, s.tick, s.progress, s.key, s.proprioception, s.chunk, "
    "u.uses, u.successes, u.merged, u.nearest, e.made, e.identity, s.checksum "
    "FROM segments s CROSS JOIN episodes e ON e.id = s.episode CROSS JOIN usage u ON u.segment = s.id "
    "WHERE e.origin = ? AND s.id > ? ORDER BY s.id"
)
"""Of an origin, with ids above one: what `read_segment` and `read_columns` read. CROSS JOIN keeps the order of tables,
so that segments come as they lie and need not be sorted."""
_OUTCOMES = frozenset(get_args(Outcome))


def read_segment(row: tuple, layout: Layout, path: Path) -> StoredSegment:
    """A row of SEGMENT_ROWS with its arrays; raises StoreDamagedError when its checksum does not match."""
    if not all(isinstance(b, bytes) for b in row[6:9]) or tuple(map(len, row[6:9])) != _sizes(layout):
        raise StoreDamagedError(f"{path}: segment {row[0]} has arrays of other sizes than its layout: {SALVAGE}")
    if checksum_of(row[14], row[4], row[5], *row[6:9]) != row[15] or row[3] not in _OUTCOMES:
        raise StoreDamagedError(f"{path}: segment {row[0]} is not what was written (checksum): {SALVAGE}")
    key, proprioception, chunk = (np.frombuffer(b, np.float32) for b in row[6:9])
    shaped = chunk.reshape(layout.horizon, layout.action_size)
    segment = Segment(int(row[4]), float(row[5]), key, proprioception, shaped)
    return StoredSegment(int(row[0]), int(row[1]), int(row[2]), row[3], segment, *row[9:14])


def read_columns(rows: Sequence[tuple], layout: Layout, path: Path) -> SegmentColumns:
    """Rows of SEGMENT_ROWS as columns. Raises StoreDamagedError naming the first whose checksum does not match.

    Opening a memory takes as long as this does: a row costs its checksum and no object of its own.
    """
    sizes, contents = _sizes(layout), []
    for row in rows:
        arrays = row[6:9]
        try:
            same = row[15] == checksum_of(row[14], row[4], row[5], *arrays)
            contents.append(checksum_of("", row[4], row[5], *arrays))
            if not same or tuple(map(len, arrays)) != sizes or row[3] not in _OUTCOMES:
                read_segment(row, layout, path)  # says what is wrong
        except TypeError as error:  # a number where an array was
            raise StoreDamagedError(f"{path}: segment {row[0]} is not what was written ({error}): {SALVAGE}") from error
    columns = list(zip(*rows, strict=True)) or [()] * 16
    count = len(rows)
    keys, places, chunks = (np.frombuffer(b"".join(column), np.float32) for column in columns[6:9])
    try:
        ids, instruction, uses, successes, merged = (np.array(columns[i], np.int64) for i in (0, 2, 9, 10, 11))
        nearest, made = (np.array(columns[i], np.float64) for i in (12, 13))
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreDamagedError(f"{path}: use of segments is not what was written ({error}): {SALVAGE}") from error
    return SegmentColumns(
        ids=ids,
        instruction=instruction,
        success=np.array([outcome == "success" for outcome in columns[3]], bool),
        key=keys.reshape(count, layout.key_size),
        proprioception=places.reshape(count, layout.proprioception_size),
        chunk=chunks.reshape(count, layout.horizon, layout.action_size),
        uses=uses,
        successes=successes,
        merged=merged,
        nearest=nearest,
        made=made,
        checksum=np.array(contents, np.int64),
    )


def _sizes(layout: Layout) -> tuple[int, int, int]:
    """Of a segment's key, proprioception and chunk [bytes]."""
    return 4 * layout.key_size, 4 * layout.proprioception_size, 4 * layout.horizon * layout.action_size


def blob(array: Float[np.ndarray, "..."]) -> bytes:
    """An array as it is stored."""
    return np.ascontiguousarray(array, np.float32).tobytes()
