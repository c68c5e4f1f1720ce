"""What a store gives back: segments with their use counts, episodes, instructions, and what a commit did."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vlamem.memory.success.experience.episode import Outcome, Segment
from vlamem.memory.success.experience.layout import EntryError, Layout


@dataclass(frozen=True)
class StoredSegment:
    """A segment with what the store knows of it.

    Attributes:
        id: in the store; later segments have higher ones, and none is used twice.
        episode: id of its episode.
        instruction: id of its instruction.
        outcome: of its episode.
        segment: itself.
        uses, successes: how often it was retrieved for a decision, and in how many of these the episode succeeded.
        merged: near-duplicates that it stands for.
        nearest: highest similarity to another segment when it was stored.
        made: time of its episode [s since 1970].
    """

    id: int
    episode: int
    instruction: int
    outcome: Outcome
    segment: Segment
    uses: int
    successes: int
    merged: int
    nearest: float
    made: float


@dataclass(frozen=True)
class SegmentColumns:
    """Segments with what the store knows of them, in order of id: a column each value, N rows; see StoredSegment.

    Attributes:
        success: whether its episode was one; a failure otherwise.
        checksum: of each segment's contents, whichever episode it is of: that of an episode changes when its label is
            corrected.
    """

    ids: Int[np.ndarray, "N"]
    instruction: Int[np.ndarray, "N"]
    success: Bool[np.ndarray, "N"]
    key: Float[np.ndarray, "N K"]
    proprioception: Float[np.ndarray, "N P"]
    chunk: Float[np.ndarray, "N H A"]
    uses: Int[np.ndarray, "N"]
    successes: Int[np.ndarray, "N"]
    merged: Int[np.ndarray, "N"]
    nearest: Float[np.ndarray, "N"]
    made: Float[np.ndarray, "N"]
    checksum: Int[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.ids)

    def those(self, mask: Bool[np.ndarray, "N"]) -> "SegmentColumns":
        """The rows where `mask` is True."""
        if mask.all():
            return self
        return SegmentColumns(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


@dataclass(frozen=True)
class Use:
    """How often a segment was retrieved for a decision, in how many of these the episode succeeded, and how many
    near-duplicates it stands for."""

    uses: int = 0
    successes: int = 0
    merged: int = 0


@dataclass(frozen=True)
class Instruction:
    """An instruction of stored episodes, with the policy's vector of it where one was given."""

    id: int
    text: str
    meaning: Float[np.ndarray, "C"] | None


@dataclass(frozen=True)
class EpisodeHead:
    """An episode without its segments."""

    id: int
    identity: str
    instruction: int
    outcome: Outcome
    verifier: str
    confidence: float
    made: float

    def described(self) -> dict[str, object]:
        """Its fields as JSON values, without ids."""
        names = ("identity", "outcome", "verifier", "confidence", "made")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class StoredTrial:
    """A played episode as a residual prior learns from it, whatever of it was stored.

    Attributes:
        identity: of the episode.
        outcome: as verified: "success", "failure" or "unknown".
        offset: [A], what was added to every action that the policy proposed.
        made: time of the episode [s since 1970].
    """

    identity: str
    outcome: str
    offset: Float[np.ndarray, "A"]
    made: float

    def check(self, layout: Layout) -> None:
        """Raises EntryError naming the first thing in the trial that may not be stored."""
        if not self.identity or self.outcome not in ("success", "failure", "unknown"):
            raise EntryError(
                f"trial '{self.identity}' has outcome {self.outcome!r}: expected an identity, and success, failure or "
                "unknown"
            )
        offset = np.asarray(self.offset)
        if offset.shape != (layout.action_size,) or not np.isfinite(offset).all():
            raise EntryError(
                f"trial '{self.identity}' has an offset of {list(offset.shape)}, expected "
                f"{layout.action_size} finite numbers: one for each entry of an action"
            )
        if not np.isfinite(self.made):
            raise EntryError(f"trial '{self.identity}' was made at {self.made}: expected seconds since 1970")


@dataclass(frozen=True)
class Merge:
    """Near-duplicate: `segment` of the new episode, by index, is counted on the stored segment `onto`."""

    segment: int
    onto: int


class StoredEpisode(NamedTuple):
    """Ids of an episode's new segments, and ids deleted because a commit under another outcome corrects the episode."""

    ids: list[int]
    retracted: list[int]


@dataclass(frozen=True)
class Committed:
    """What a commit did.

    Attributes:
        ids: of new segments.
        merged: segments that were counted on a near-duplicate instead of being stored.
        evicted: ids of segments deleted to keep the capacity.
        milliseconds: time of the commit.
        retracted: segments of the same episode under another outcome that were deleted.
    """

    ids: tuple[int, ...]
    merged: int
    evicted: tuple[int, ...]
    milliseconds: float
    retracted: int = 0
