"""Runs a policy over the tasks of a suite and writes down what happened.

The folder of a run: run.json (what it is), episodes.jsonl (one line each, on disk before the next begin), results.json
(at the end), videos/. A run that was stopped is continued by the same command and ends with the same results.json, its
section `wall_clock` apart. Episodes [k batch, (k + 1) batch) of a task are a group, played side by side; a group of
which a line is missing is played again whole, since what an episode does may depend on the rows beside it.
"""

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

from vlamem.core.locks import exclusive_lock
from vlamem.policies.registry import EXPERTS, PolicySource, find_policy, load_policy
from vlamem.sim import gl
from vlamem.sim.results.episodes import EpisodeLog, EpisodeRecord
from vlamem.sim.results.pages import WALL_CLOCK, fingerprint, write_results
from vlamem.sim.results.summary import summarise
from vlamem.sim.rollout.ablations import OF_THE_STATE
from vlamem.sim.rollout.config import PlanError, RolloutConfig, open_folder
from vlamem.sim.rollout.engines import Engine, check_not_starting, engine_of
from vlamem.sim.rollout.oracles import ORACLES
from vlamem.sim.rollout.trials import missing
from vlamem.sim.suites.protocol import Suite
from vlamem.sim.suites.registry import load_suite, select_tasks


@dataclass(frozen=True)
class RolloutEnd:
    """How a rollout ended.

    Attributes:
        done, planned: episodes recorded, and all that the run has.
        errors: episodes recorded as errors.
        signal: number of the signal that stopped it, or None.
        results: body of results.json; None when it was stopped before the end.
    """

    done: int
    planned: int
    errors: int
    signal: int | None
    results: dict[str, Any] | None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of obeying them."""
    got: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_memory(config: RolloutConfig, suite: Suite) -> None:
    """Raises PlanError for what needs a task that hides something, in a suite without one."""
    if any(info.kind == "memory" for info in suite.tasks.values()):
        return
    for name in config.memories():
        if name.kind in ORACLES:
            raise PlanError(
                f"memory '{name.kind}' is given what a memory task hides, and suite '{suite.name}' has no such task"
            )
    if config.ablation in OF_THE_STATE:
        raise PlanError(
            f"ablation '{config.ablation}' begins when a memory task's cue ends, and suite '{suite.name}' has no such "
            "task"
        )


def _marks(config: RolloutConfig, suite: Suite, source: PolicySource) -> dict[str, Any]:
    """The run's fingerprint. Raises NoGLError when the suite's images need GL and nothing can render them."""
    policy: dict[str, Any] = {"name": source.name, "weights_sha256": source.sha256}
    hashes = [name.sha256 for name in config.memories() if name.sha256 is not None]
    if hashes:
        policy |= {"memory_sha256": hashes[0] if len(hashes) == 1 else hashes}
    rendering = None
    cameras: tuple[str, ...] = ()
    if config.policy not in EXPERTS:
        spec = load_policy(source).spec
        cameras = spec.cameras
        policy |= {"spec": spec.fingerprint, "normaliser": spec.normaliser, "action_spec": asdict(spec.action)}
    needs_gl = getattr(suite, "needs_gl", True)
    if needs_gl and (cameras or config.video):
        backend = gl.choose()
        gl.settle(backend.name)
        rendering = backend.marks()
    elif not needs_gl:
        gl.settle()  # nothing is tried: an environment that MuJoCo draws finds what it needs where it is there
    return fingerprint(gl=rendering, command=config.command(), seed=config.seed, policy=policy)


def _same(record: EpisodeRecord, before: EpisodeRecord | None) -> bool:
    """Whether an episode went as its line on disk says, times apart."""
    return before is not None and replace(record, wall_clock={}) == replace(before, wall_clock={})


def rollout(
    config: RolloutConfig,
    begin: Callable[[int, int], None] = lambda done, planned: None,
    progress: Callable[[EpisodeRecord], None] = lambda record: None,
) -> RolloutEnd:
    """Plays what of `config` is not yet in its folder, and writes results.json when all is. One process at a time: a
    second one waits for some seconds for a first that is ending.

    `begin` gets how many episodes are done already and how many there are; `progress` gets each new record.
    Raises SuiteError, PolicyError, PlanError, SpecMismatchError or RunRefusedError before anything is played when the
    run cannot be done, InUseError when another process plays in its folder, NoGLError without a renderer, DiskFullError
    when the disk fills. Episodes recorded until then stay, and the same call continues.
    """
    check_not_starting()
    began = time.perf_counter()
    suite = load_suite(config.suite)
    tasks = select_tasks(suite, config.tasks)
    _check_memory(config, suite)
    engine = engine_of(config)
    source = find_policy(config.policy)
    marks = _marks(config, suite, source)
    mend = "wait for its end, or choose another --out"
    lock = exclusive_lock(config.out / ".lock", f"run folder {config.out}", mend)
    try:
        return _play(config, tasks, engine, marks, began, begin, progress)
    finally:
        lock.release()


def _play(
    config: RolloutConfig,
    tasks: Sequence[str],
    engine: Engine,
    marks: dict[str, Any],
    began: float,
    begin: Callable[[int, int], None],
    progress: Callable[[EpisodeRecord], None],
) -> RolloutEnd:
    """What is missing in the run's folder, which this process has alone."""
    open_folder(config, marks)
    log = EpisodeLog(config.out / "episodes.jsonl")
    planned = [(task, episode) for task in tasks for episode in range(config.episodes)]
    on_disk = {(r.task, r.episode): r for r in log.read()}
    if config.retry_errors:
        on_disk = {at: record for at, record in on_disk.items() if record.outcome != "error"}
    jobs = missing(config, tasks, on_disk)
    again = {(task, episode) for task, group in jobs for episode in group}
    records = {at: on_disk[at] for at in planned if at not in again}
    begin(len(planned) - len(again), len(planned))
    with _signals() as signals, closing(engine.play(config, jobs, lambda: bool(signals))) as played:
        for group in played:
            log.append(*(r for r in group if not _same(r, on_disk.get((r.task, r.episode)))))
            for record in group:
                records[record.task, record.episode] = record
                progress(record)
    finished = [records[at] for at in planned if at in records]
    errors = sum(r.outcome == "error" for r in finished)
    stopped_by = signals[0] if signals else None
    if len(finished) < len(planned):
        return RolloutEnd(len(finished), len(planned), errors, stopped_by, None)
    arms, latency = summarise(finished, tasks)
    body = {
        "fingerprint": marks,
        "configuration": config.results_depend_on(),
        "arms": arms,
        WALL_CLOCK: {
            "command": shlex.join(sys.argv),
            "workers": config.workers,
            "seconds": time.perf_counter() - began,
            "episode_seconds": sum(r.wall_clock.get("seconds", 0.0) for r in finished),
            "played_in_this_call": len(again),
            "decision_ms": latency,
        },
    }
    write_results(config.out, body)
    return RolloutEnd(len(finished), len(planned), errors, stopped_by, body)
