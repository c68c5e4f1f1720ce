"""How a control loop uses chunks, what its rounds did, and how well it kept time."""

import enum
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlamem.deploy.robot.limits import Clip
from vlamem.deploy.robot.timeline import Planned


@dataclass(frozen=True)
class ControlOptions:
    """How chunks are used.

    Attributes:
        execute: steps of a chunk after which the next one is requested.
        blend: steps over which a chunk gives way to the next.
        plan_timeout_s: a plan that has not come after this is requested again.
        watchdog_s: without a round for so long, and at least for two periods, the watchdog brings the arm to rest.
        moves: whether the robot executes what it is sent; in a dry run no action counts as executed.
    """

    execute: int = 4
    blend: int = 3
    plan_timeout_s: float = 0.5
    watchdog_s: float = 0.1
    moves: bool = True


class Mode(enum.Enum):
    """What the controller does in a round; vlamem.deploy.robot.controller describes each."""

    WAIT = "wait"
    RUN = "run"
    HOLD = "hold"
    STOP = "stop"
    HALT = "halt"
    TELEOP = "teleop"


@dataclass(frozen=True)
class Round:
    """What one round did, for logs and audits.

    Attributes:
        t: when it began [s on the monotonic clock].
        episode: that runs.
        mode: of the controller.
        command: [A] that was sent, or None.
        planned: where it came from, or None for one that came from no chunk.
        proprioception: [P], that the limits were applied to.
        gripper_force: likewise [N], or None.
        stamp: of the observation [s].
    """

    t: float
    episode: int
    mode: Mode
    command: NDArray[np.float64] | None
    planned: Planned | None
    proprioception: NDArray[Any]
    gripper_force: float | None
    stamp: float


@dataclass
class Timing:
    """How well the loop kept time: lateness of each round [s], plans [s], and rounds that were missed.

    What happened since the last frame goes to the server with the next one, for the trace of the episode.
    """

    late: "array[float]" = field(default_factory=lambda: array("d"))
    decisions: "array[float]" = field(default_factory=lambda: array("d"))
    misses: int = 0
    _since: dict[str, Any] = field(default_factory=dict)

    def rounded(self, late_s: float) -> None:
        """A round began so late."""
        self.late.append(late_s)
        self._since["late_ms"] = max(1e3 * late_s, self._since.get("late_ms", 0.0))

    def decided(self, took_s: float) -> None:
        """A chunk came so long after it was requested."""
        self.decisions.append(took_s)
        self._since["plan_ms"] = 1e3 * took_s

    def clipped(self, clips: Sequence[Clip]) -> None:
        """Limits changed a command."""
        for clip in clips:
            self._since["limits"] = sorted({clip.kind, *self._since.get("limits", ())})
            if len(clip.requested) == len(clip.sent) and clip.kind != "nan":
                changed = max(abs(a - b) for a, b in zip(clip.requested, clip.sent, strict=True))
                self._since["clipped"] = max(changed, self._since.get("clipped", 0.0))

    def report(self, mode: Mode) -> dict[str, Any]:
        """What happened since the last report, as a frame carries it: the largest values, and the present mode."""
        found, self._since = self._since, {}
        return found | {"mode": mode.value}


def percentiles(values: "array[float]", scale: float = 1e3) -> dict[str, float]:
    """p50, p99 and max of seconds, in milliseconds; empty without values."""
    if not values:
        return {}
    sorted_: NDArray[Any] = np.sort(np.asarray(values)) * scale
    return {
        "p50": float(np.percentile(sorted_, 50)),
        "p99": float(np.percentile(sorted_, 99)),
        "max": float(sorted_[-1]),
    }
