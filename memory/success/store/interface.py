"""What every store of success memories can do, whatever database is behind it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from vlamem.memory.success.experience.episode import Episode
from vlamem.memory.success.experience.layout import Layout, Origin
from vlamem.memory.success.experience.records import (
    EpisodeHead,
    Instruction,
    Merge,
    SegmentColumns,
    StoredEpisode,
    StoredSegment,
    StoredTrial,
    Use,
)


@runtime_checkable
class SuccessStore(Protocol):
    """The durable copy of a success memory: the truth that indices are rebuilt from.

    Every method that writes does so in one transaction: durable when it returns, and whole or not done at all when the
    process is killed. Methods may be called from any thread; many processes may read while one writes. Writing raises
    StoreBusyError when another process has been writing for too long and StoreFullError on a full medium, with nothing
    stored; reading raises StoreDamagedError for what is not as it was written.

    Attributes:
        name: of the store, for messages.
    """

    name: str

    def close(self) -> None:
        """Closes the connection."""
        ...

    # Origins ------------------------------------------------------------------------------------------------------

    def origins(self) -> list[tuple[int, Origin, Layout]]:
        """Every origin with its id and layout, oldest first."""
        ...

    def add_origin(self, origin: Origin, layout: Layout) -> int:
        """Stores an origin, unless it is there, and gives its id."""
        ...

    # Episodes -----------------------------------------------------------------------------------------------------

    def commit(
        self,
        origin: int,
        episode: Episode,
        nearest: Sequence[float] = (),
        merges: Sequence[Merge] = (),
        evict: Sequence[int] = (),
        version: int | None = None,
        use: Sequence[Use] = (),
        corrects: bool = True,
    ) -> StoredEpisode | None:
        """Stores a checked episode; None if it was there.

        `nearest` is, for each segment, its highest similarity to a stored one; segments in `merges` are counted on
        another instead of being stored; `evict` are deleted; `use` is what is known of each segment's. An identity that
        is there under another outcome is corrected, unless `corrects` is False: its segments are deleted, but for those
        into which others were merged. Ids of segments rise and are never used twice.

        Raises StoreChangedError, with nothing stored, when `data_version` is not `version` at the moment of storing, or
        a segment of `merges` is gone.
        """
        ...

    def instructions(self) -> list[Instruction]:
        """Every instruction of stored episodes."""
        ...

    def segments(self, origin: int, after: int = 0) -> Iterator[StoredSegment]:
        """Segments of an origin with an id above `after`, in order of id, each checked against its checksum."""
        ...

    def columns(self, origin: int, after: int = 0) -> SegmentColumns:
        """The same segments, a column each value, each checked against its checksum."""
        ...

    def episode_heads(self, origin: int) -> list[EpisodeHead]:
        """Every episode of an origin, oldest first."""
        ...

    def credit(self, ids: Int[np.ndarray, "N"], success: bool) -> None:
        """Counts one use of each segment, in an episode that ended in success or not."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Deletes segments, and episodes that have none left."""
        ...

    def use(self, origin: int) -> dict[int, Use]:
        """What is known of the use of every segment of an origin, by id, in order."""
        ...

    def counts(self, origin: int) -> dict[str, int]:
        """Numbers of an origin: success_episodes, success_segments, failure_episodes, failure_segments, trials."""
        ...

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        ...

    # Trials -------------------------------------------------------------------------------------------------------

    def add_trials(self, origin: int, trials: Sequence[StoredTrial]) -> None:
        """Stores checked trials; one of the same identity is replaced."""
        ...

    def trials(self, origin: int) -> list[StoredTrial]:
        """Every trial of an origin, oldest first."""
        ...

    def delete_trials(self, origin: int, identities: Sequence[str]) -> None:
        """Deletes trials by identity."""
        ...

    # Calibrations -------------------------------------------------------------------------------------------------

    def add_calibration(self, origin: int, made: float, body: str) -> None:
        """Stores a calibration (JSON) of an origin, made at a time [s since 1970]; the newest counts."""
        ...

    def calibration(self, origin: int) -> str | None:
        """The newest calibration of an origin, or None."""
        ...

    # Soundness ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Checks all that the database itself can check. Raises StoreDamagedError with what it reports."""
        ...

    def bytes(self) -> int:
        """Size on the medium."""
        ...


@runtime_checkable
class UndoingStore(Protocol):
    """A store that can take back what it did for an episode, also to the segments of others."""

    def take_back(self, run: str, kept: Collection[str]) -> bool:
        """Undoes, newest first, what was stored while an episode was named whose identity begins with `run` and is not
        in `kept`; True when there was something. From the first call on what is stored for named episodes is noted."""
        ...

    def name_episode(self, identity: str | None) -> None:
        """What is stored from now on is of the episode of this identity; of none with None."""
        ...
