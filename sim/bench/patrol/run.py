"""One stream of up to 100,000 control steps without a reset, cue after cue and query after query: the page patrol.md.

What a memory keeps of one round may not spoil the next, its state may not grow, nor may the process. Each arm is played
in a process of its own, on the same stream: the same scene, cues and noise; what a policy does decides when the next
round begins, so that the number of rounds differs.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from vlamem.core.bench import Page, Progress
from vlamem.core.files import write_atomically
from vlamem.policies.memories import parse_memories
from vlamem.policies.registry import find_policy
from vlamem.sim.bench.patrol.options import PatrolBench
from vlamem.sim.bench.patrol.report import page_of
from vlamem.sim.bench.patrol.stream import PatrolError, Stream, memory_of, play, read
from vlamem.sim.rollout.engines.pool import spread


def run(options: PatrolBench, command: str, progress: Progress) -> Page:
    """Plays the arms that are missing, and gives the page.

    Raises PatrolError when a stream breaks or the folder holds other streams.
    """
    return page_of(play_arms(options, progress.say), options)


def play_arms(bench: PatrolBench, say: Callable[[str], None]) -> dict[str, Stream]:
    """Plays the arms that are missing, side by side, and returns all; `say` gets a line for each that is finished.

    Raises PatrolError when a stream breaks or the folder holds other streams.
    """
    path = bench.out / "bench.json"
    marks = {name: getattr(bench, name) for name in ("steps", "policy", "gate", "episode", "seed", "execute")}
    marks |= {
        "weights": find_policy(bench.policy).sha256,
        "gate_sha256": parse_memories((memory_of(bench, "aura"),))[0].sha256,
    }
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != marks:
        raise PatrolError(f"{path} is of other options: choose another --out, or remove the folder")
    write_atomically(path, json.dumps(marks) + "\n")
    missing = [arm for arm in bench.arms if not _file(bench, arm).exists()]
    for arm, _ in spread(partial(_keep, bench), missing, bench.workers, fresh=True):
        say(f"{arm}: {bench.steps} steps")
    return {arm: read(_file(bench, arm)) for arm in bench.arms}


def _file(bench: PatrolBench, arm: str) -> Path:
    return bench.out / f"{arm}.json"


def _keep(bench: PatrolBench, arm: str) -> None:
    write_atomically(_file(bench, arm), json.dumps(asdict(play(bench, arm))) + "\n")
