"""How a success memory is kept."""

from dataclasses import dataclass, field
from typing import Literal

from vlamem.memory.success.lifecycle.recorder import FAILURE_SEGMENTS
from vlamem.memory.success.lifecycle.stages import EVICTIONS
from vlamem.memory.success.retrieve.prior import RetrieveOptions
from vlamem.memory.success.retrieve.residual import ResidualOptions


@dataclass(frozen=True)
class MemoryOptions:
    """How a success memory is kept.

    Attributes:
        retrieve: how elite priors are made. Its threshold is replaced by a stored calibration's.
        calibrated: False ignores a stored calibration.
        proprioception_weight: of the proprioception in the similarity, where there is no calibration.
        most_segments: capacity in segments of successes, and again of failures; None has no bound.
        most_bytes: capacity in bytes of stored arrays, likewise.
        eviction: name of the policy that chooses what goes when it is full; see `lifecycle.stages`.
        merge_similarity: states from here on may be merged; above 1 nothing is.
        merge_distance: warped distance per step up to which chunks of such states are merged.
        failure_segments: how many of the last segments before a failure `observe_episode` keeps.
        wait_s: how long a write waits for another process.
        check: whether the whole store is checked at opening.
        read_only: nothing is written, as on a medium that cannot be written to.
        seed: of random eviction.
        prior: "elite", what succeeded in a state like this one; or "residual", one correction of every command, which
            holds in states that were never seen.
        residual: how a residual prior is learned.
    """

    retrieve: RetrieveOptions = field(default_factory=RetrieveOptions)
    calibrated: bool = True
    proprioception_weight: float = 1.0
    most_segments: int | None = None
    most_bytes: int | None = None
    eviction: str = "utility"
    merge_similarity: float = 0.999
    merge_distance: float = 0.05
    failure_segments: int = FAILURE_SEGMENTS
    wait_s: float = 10.0
    check: bool = True
    read_only: bool = False
    seed: int = 0
    prior: Literal["elite", "residual"] = "elite"
    residual: ResidualOptions = field(default_factory=ResidualOptions)

    def __post_init__(self) -> None:
        EVICTIONS.get(self.eviction)
