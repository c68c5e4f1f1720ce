"""One stream of up to 100,000 control steps without a reset, cue after cue and query after query: the page patrol.md.

What a memory keeps of one round may not spoil the next, its state may not grow, nor may the process. Each arm is played
in a process of its own, on the same stream: the same scene, cues and noise; what a policy does decides when the next
round begins, so that the number of rounds differs.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlamem.core.files import write_atomically
from vlamem.policies.memories import parse_memories
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.patrol.options import ARMS, PatrolBench
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.worker import THREADS
from vlamem.sim.rollout.episode import Player

TITLES = {"alone": "policy alone", "aura": "AURA-Mem", "oracle": "oracle instruction"}
EVERY = 50
"""Control steps between two samples of what the process holds."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PatrolError(RuntimeError):
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


def run(bench: PatrolBench, progress: Callable[[str], None]) -> dict[str, Stream]:
    """Plays the arms that are missing, side by side, and returns all; `progress` gets a line for each that is finished.

    Raises PatrolError when a stream breaks or the folder holds other streams.
    """
    path = bench.out / "bench.json"
    marks = {name: getattr(bench, name) for name in ("steps", "policy", "gate", "episode", "seed", "execute")}
    marks |= {
        "weights": find_policy(bench.policy).sha256,
        "gate_sha256": parse_memories((_memory(bench, "aura"),))[0].sha256,
    }
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != marks:
        raise PatrolError(f"{path} is of other options: choose another --out, or remove the folder")
    write_atomically(path, json.dumps(marks) + "\n")
    missing = [arm for arm in bench.arms if not _file(bench, arm).exists()]
    os.environ.update(THREADS)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(bench.workers, max(1, len(missing))), context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(_keep, bench, arm): arm for arm in missing}
        for done in as_completed(waiting):
            done.result()
            progress(f"{waiting[done]}: {bench.steps} steps")
    return {arm: read(_file(bench, arm)) for arm in bench.arms}


def _memory(bench: PatrolBench, arm: str) -> str:
    return ARMS[arm] if arm != "aura" or bench.gate == "shipped" else f"aura:{bench.gate}"


def read(path: Path) -> Stream:
    """A stream as `run` left it. Raises OSError without it."""
    body: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Stream(**{**body, "queries": [(int(step), bool(right)) for step, right in body["queries"]]})


def _file(bench: PatrolBench, arm: str) -> Path:
    return bench.out / f"{arm}.json"


def _keep(bench: PatrolBench, arm: str) -> None:
    write_atomically(_file(bench, arm), json.dumps(asdict(play(bench, arm))) + "\n")


def _rollout(bench: PatrolBench, arm: str) -> RolloutConfig:
    """The run of one arm. Raises PlanError for options that do not fit."""
    memory = _memory(bench, arm)
    return RolloutConfig(
        suite="tabletop", tasks=("patrol",), policy=bench.policy, memory=(memory,), episodes=1, seed=bench.seed,
        out=bench.out / arm, workers=1, video=0, split="test", wording="held_out", size=84, render="fast",
        execute=bench.execute, parameters=(f"steps={bench.steps}",), watchdog_s=600.0, retry_errors=False,
    )  # fmt: skip
