"""Near-duplicates: segments that are counted on a stored one instead of being stored."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import comparable
from vlamem.memory.success.experience.records import Merge
from vlamem.memory.success.retrieve.consistency import warped
from vlamem.memory.success.retrieve.segments import SegmentIndex


def near_duplicates(
    index: SegmentIndex, episode: Episode, instruction: int | None, similarity: float, distance: float
) -> tuple[list[Merge], list[float]]:
    """Segments that are near-duplicates of stored ones, and the similarity of each to its nearest.

    Those are of the same `instruction` (id; None for one that is not stored), at least so similar in state, and their
    chunks at most so far apart by warped distance per step.
    """
    if not len(index):
        return [], []
    merges, nearest = [], []
    states = index.metric.embed(*_arrays_of(episode.segments))
    for i, (state, segment) in enumerate(zip(states, episode.segments, strict=True)):
        found = index.nearest(state, 1, None if instruction is None else np.array([instruction]))
        nearest.append(float(found.similarity[0]) if len(found.ids) else -1e30)
        if instruction is None or nearest[-1] < similarity:
            continue
        mine, stored = (comparable(chunks, index.metric.layout.parts) for chunks in (segment.chunk[None], found.chunks))
        if float(warped(mine, stored)[0]) <= distance:
            merges.append(Merge(i, int(found.ids[0])))
    return merges, nearest


def _arrays_of(segments: Sequence[Segment]) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "N P"]]:
    """Keys and proprioception of segments."""
    return np.stack([s.key for s in segments]), np.stack([s.proprioception for s in segments])
