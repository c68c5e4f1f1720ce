"""What the deploy bench measured."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlamem.deploy.bench.controller_kills import ControllerKill
from vlamem.deploy.bench.faults import Faults


@dataclass(frozen=True)
class Quiet:
    """The run without faults.

    Attributes:
        report: the robot's.
        cpu_percent: of one core, of the server.
        memory_mb: resident memory of the server, sampled through the run.
    """

    report: dict[str, Any]
    cpu_percent: float
    memory_mb: tuple[float, ...]


def growth(sampled: tuple[float, ...]) -> float:
    """Median of the last tenth less that of the third tenth; the first two are of a program that warms up."""
    tenth = max(1, len(sampled) // 10)
    return float(np.median(sampled[-tenth:]) - np.median(sampled[2 * tenth : 3 * tenth] or sampled[:1]))


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        quiet, faults: the two runs.
        revived: the report of the last controller that came after a killed one.
        controller_kills: each kill of a controller.
        labels_lost: acknowledged to the robot and not in the server's file.
        alive: whether the server answered at the end.
    """

    quiet: Quiet
    faults: Faults
    revived: dict[str, Any]
    controller_kills: tuple[ControllerKill, ...]
    labels_lost: int
    alive: bool
