"""The types of experience: layout, origin, episodes, segments, traces, verdicts, and what a store gives back."""

from vlamem.memory.success.experience.episode import Episode, Segment
from vlamem.memory.success.experience.layout import ActionPart, EntryError, Layout, Origin, OriginError
from vlamem.memory.success.experience.records import (
    Committed,
    EpisodeHead,
    Instruction,
    Merge,
    StoredEpisode,
    StoredSegment,
    StoredTrial,
)
from vlamem.memory.success.experience.trace import EncodedObservation, Trace, Verdict

__all__ = [
    "ActionPart",
    "Committed",
    "EncodedObservation",
    "EntryError",
    "Episode",
    "EpisodeHead",
    "Instruction",
    "Layout",
    "Merge",
    "Origin",
    "OriginError",
    "Segment",
    "StoredEpisode",
    "StoredSegment",
    "StoredTrial",
    "Trace",
    "Verdict",
]
