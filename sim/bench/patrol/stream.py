"""One arm of the long stream: what it answered, and what memory and process held along it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.bench import BenchError
from vlamem.sim.bench.patrol.options import ARMS, PatrolBench
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.episode import Player

TITLES = {"alone": "policy alone", "aura": "AURA-Mem", "oracle": "oracle instruction"}
EVERY = 50
"""Control steps between two samples of what the process holds."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PatrolError(BenchError):
    """A stream that broke; the message says where."""


@dataclass
class Stream:
    """What one arm did.

    Attributes:
        arm: its name.
        queries: (control step, whether the answer was right) of every query.
        sampled, resident: control steps, and what the process held at them [MB].
        writes, ticks, state_bytes: of the memory.
        seconds: for the whole stream.
    """

    arm: str
    queries: list[tuple[int, bool]] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    writes: int = 0
    ticks: int = 0
    state_bytes: int = 0
    seconds: float = 0.0


def play(bench: PatrolBench, arm: str) -> Stream:
    """Plays one arm to the end of its stream.

    Raises PatrolError when the stream breaks, and what Player raises.
    """
    found = Stream(arm)
    right = 0

    def beat() -> None:
        nonlocal right
        env: Any = player.env  # of the tabletop suite
        task = env.task
        if task.queries > len(found.queries):
            found.queries.append((task.now, task.correct > right))
            right = task.correct
        if task.now % EVERY == 0:
            found.sampled.append(task.now)
            found.resident.append(round(resident_mb(), 1))

    player = Player(_rollout(bench, arm), beat)
    try:
        record = player.play("patrol", bench.episode)
    finally:
        player.close()
    if record.outcome == "error":
        raise PatrolError(f"{arm}: the stream broke after {record.steps} steps: {record.error}")
    found.writes, found.ticks, found.state_bytes = record.writes, record.ticks, record.state_bytes
    found.seconds = record.wall_clock["seconds"]
    return found


def resident_mb() -> float:
    """Resident memory of this process [MB]. Raises OSError without /proc."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6


def memory_of(bench: PatrolBench, arm: str) -> str:
    """An arm's `--memory`."""
    return ARMS[arm] if arm != "aura" or bench.gate == "shipped" else f"aura:{bench.gate}"


def read(path: Path) -> Stream:
    """A stream as `run` left it. Raises OSError without it."""
    body: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Stream(**{**body, "queries": [(int(step), bool(right)) for step, right in body["queries"]]})


def _rollout(bench: PatrolBench, arm: str) -> RolloutConfig:
    """The run of one arm. Raises PlanError for options that do not fit."""
    memory = memory_of(bench, arm)
    return RolloutConfig(
        suite="tabletop", tasks=("patrol",), policy=bench.policy, memory=(memory,), episodes=1, seed=bench.seed,
        out=bench.out / arm, workers=1, video=0, split="test", wording="held_out", size=84, render="fast",
        execute=bench.execute, parameters=(f"steps={bench.steps}",), watchdog_s=600.0, retry_errors=False,
        trace=False,  # of one endless episode, which would grow in the memory that is measured
    )  # fmt: skip
