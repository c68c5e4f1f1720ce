"""Gives episodes to worker processes and watches over these: a worker that hangs or dies is replaced."""

import json
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.protocol import GUARD, RunRefusedError
from vlamem.sim.rollout.engines.worker import THREADS, serve
from vlamem.sim.rollout.trials import Job, initial_state

_POLL_S = 0.5
_START_S = 300.0
"""Libraries load and scenes are built before the first step, slowly on a busy machine."""


@dataclass
class _Seat:
    """A worker and what it is doing."""

    process: SpawnProcess
    connection: Connection
    clock: Any
    ready: bool = False
    job: Job | None = None
    task: str = ""
    lost: bool = False


def _start(config: RolloutConfig, first_task: str) -> _Seat:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    clock = context.Value("d", time.monotonic(), lock=False)
    process = context.Process(target=serve, args=(theirs, clock, config, first_task), daemon=True)
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()
    return _Seat(process, ours, clock)


def _stop(seat: _Seat) -> None:
    seat.connection.close()
    if seat.job is not None or not seat.ready:
        seat.process.terminate()
    seat.process.join(5)
    if seat.process.is_alive():
        seat.process.kill()
        seat.process.join()


class _Jobs:
    """Groups of episodes still to be given out, task by task, so that a worker changes its environments rarely."""

    def __init__(self, jobs: Sequence[Job], in_order: bool) -> None:
        """With `in_order` they are given out as they stand."""
        self._in_order = in_order
        self._left: dict[str, deque[tuple[int, ...]]] = {}
        for task, episodes in jobs:
            self._left.setdefault(task, deque()).append(episodes)

    def __bool__(self) -> bool:
        return bool(self._left)

    def take(self, task: str, busy_with: set[str]) -> Job:
        """The next group of `task`, else of a task that no one is on, else of the one with most left."""
        if self._in_order:
            task = next(iter(self._left))
        elif task not in self._left:
            task = max(self._left, key=lambda t: (t not in busy_with, len(self._left[t])))
        episodes = self._left[task].popleft()
        if not self._left[task]:
            del self._left[task]
        return task, episodes


class ProcessEngine:
    """Plays in worker processes, `config.workers` of them at most."""

    def play(
        self, config: RolloutConfig, jobs: Sequence[Job], stopped: Callable[[], bool]
    ) -> Generator[list[EpisodeRecord]]:
        """As Engine says. The episodes of a job whose worker hangs for `config.watchdog_s` or dies become errors."""
        left = _Jobs(jobs, config.learns)
        first_task = jobs[0][0] if jobs else ""
        seats = [_start(config, first_task) for _ in range(min(config.workers, len(jobs)))]
        try:
            while (left or any(seat.job for seat in seats)) and not stopped():
                for seat in seats:
                    if seat.ready and seat.job is None and left:
                        seat.job = left.take(seat.task, {s.task for s in seats})
                        seat.task = seat.job[0]
                        seat.clock.value = time.monotonic()
                        with suppress(BrokenPipeError):  # it died while idle: found out below
                            seat.connection.send_bytes(json.dumps(seat.job).encode())
                wait([seat.connection for seat in seats], _POLL_S)
                for i, seat in enumerate(seats):
                    records = _hear(seat, config)
                    if records:
                        yield records
                    if seat.lost:
                        _stop(seat)
                        seats[i] = _start(config, first_task)
        finally:
            for seat in seats:
                _stop(seat)


ENGINE = ProcessEngine()


def _hear(seat: _Seat, config: RolloutConfig) -> list[EpisodeRecord]:
    """The records that a worker sends, if any; for one that is gone or hangs, the errors of its episodes."""
    if seat.connection.poll():
        try:
            message = json.loads(seat.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            seat.process.join(5)
            return _lost(seat, config, f"worker process ended with exit status {seat.process.exitcode}")
        body = message["body"]
        if message["kind"] == "ready":
            seat.ready = True
            return []
        if message["kind"] == "refused":
            raise RunRefusedError(body)
        if message["kind"] == "missing":
            raise ModuleNotFoundError(f"No module named '{body}'", name=body)
        if message["kind"] == "disk":
            raise DiskFullError(body)
        seat.job = None
        return [EpisodeRecord(**record) for record in body]
    patience = config.watchdog_s if seat.ready else max(config.watchdog_s, _START_S)
    if (seat.job or not seat.ready) and time.monotonic() - seat.clock.value > patience:
        seat.process.kill()
        seat.process.join()
        return _lost(seat, config, f"no control step for {patience:g} s: the worker hung and was replaced")
    return []


def _hint() -> str:
    """What to do about a worker that does not start, by what this process runs."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return "in a notebook, keep what workers need in a module that can be imported, or play with workers=0"
    if Path(file).name in ("vlamem", "__main__.py"):
        return "'vlamem doctor' checks what it needs"
    return f"every worker runs {file} again: {GUARD}"


def _lost(seat: _Seat, config: RolloutConfig, why: str) -> list[EpisodeRecord]:
    job, seat.job, seat.lost = seat.job, None, True
    if not seat.ready:
        raise RunRefusedError(f"a worker process could not start: {why}; {_hint()}")
    if job is None:
        return []
    task, episodes = job
    states = {e: initial_state(config, e).name(config.split) for e in episodes}
    return [
        EpisodeRecord(config.arm, task, config.split, e, config.seed, "error", state, error=why)
        for e, state in states.items()
    ]
