"""Plays on a Ray cluster: an actor for each worker, wherever there is a free processor.

RAY_ADDRESS says which cluster, as everywhere in Ray; without it a Ray of this machine alone is started, and ended with
the run. A job is a pure function of the run, so that one whose actor or node was lost is played once more elsewhere.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ray
from ray.cloudpickle import register_pickle_by_value
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlamem.core.files import write_atomically
from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord, disk_full
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines import nodes
from vlamem.sim.rollout.engines.protocol import RunRefusedError
from vlamem.sim.rollout.engines.ray_actor import RolloutActor
from vlamem.sim.rollout.engines.worker_process import START_S, errors_of
from vlamem.sim.rollout.trials import Job, JobQueue

ADDRESS = "RAY_ADDRESS"
_POLL_S = 0.5
_REACH_S = 10.0
_PLACE_S = 3 * START_S
"""An actor is placed, loads what it needs, and then waits for its process, which has START_S of its own."""
_TRIES = 2
"""A job that took two nodes or actors with it is an error of its episodes."""
_PACKAGE = "vlamem"
_PASSED_ON = ("MUJOCO_GL", "PYOPENGL_PLATFORM")


@dataclass
class _Worker:
    """An actor; jobs are given to it once it has started."""

    actor: Any
    task: str = ""


class RayEngine:
    """Plays on the cluster that RAY_ADDRESS names, else on this machine, with `config.workers` actors at most."""

    def play(
        self, config: RolloutConfig, jobs: Sequence[Job], stopped: Callable[[], bool]
    ) -> Generator[list[EpisodeRecord]]:
        """As Engine says. The episodes of a job become errors when two workers were lost with it."""
        if not jobs:
            return
        marks = json.loads((config.out / "run.json").read_text(encoding="utf-8"))["fingerprint"]
        with _connected(config.workers):
            _check_nodes(marks)
            actors = _Actors(config, jobs, marks)
            try:
                yield from actors.play(stopped)
            finally:
                actors.close()


ENGINE = RayEngine()


class _Actors:
    """The actors of a run, and which job each of them plays."""

    def __init__(self, config: RolloutConfig, jobs: Sequence[Job], marks: dict[str, Any]) -> None:
        self._config, self._left = config, JobQueue(jobs)
        self._lost: dict[Job, int] = {}
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._given = config, jobs[0][0], marks, os.getcwd(), environment
        # whom a lost job goes to is decided here: Ray would try the lost actor again, or wait for its place
        self._remote = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RolloutActor)
        self._waiting: dict[Any, tuple[_Worker, Job | None]] = {}
        """What is waited for: the answer of an actor to a job, or to being started."""
        self._idle: list[_Worker] = []
        self._failed = 0
        """Actors that were lost while they started, since one has."""
        for _ in range(min(config.workers, len(jobs))):
            self._add()

    def _add(self) -> None:
        worker = _Worker(self._remote.remote(*self._given))
        self._waiting[worker.actor.start.remote()] = worker, None

    def play(self, stopped: Callable[[], bool]) -> Generator[list[EpisodeRecord]]:
        since = time.monotonic()
        while (self._left or self._playing()) and not stopped():
            self._give()
            done, _ = ray.wait(list(self._waiting), timeout=_POLL_S)
            for reference in done:
                worker, job = self._waiting.pop(reference)
                records = self._take(reference, worker, job)
                if records:
                    yield records
            if done or self._playing():
                since = time.monotonic()
            elif time.monotonic() - since > _PLACE_S:
                raise RunRefusedError(
                    f"no actor could be started for {_PLACE_S:g} s: {_free()}; free some, or add nodes to the cluster"
                )

    def _playing(self) -> list[_Worker]:
        return [worker for worker, job in self._waiting.values() if job is not None]

    def _give(self) -> None:
        while self._idle and self._left:
            worker = self._idle.pop()
            job = self._left.take(worker.task, {w.task for w in self._playing()})
            worker.task = job[0]
            self._waiting[worker.actor.play.remote(job)] = worker, job

    def _take(self, reference: Any, worker: _Worker, job: Job | None) -> list[EpisodeRecord]:
        """What an actor has answered: the records of its job, none when it has started or is lost."""
        try:
            kind, body, files = ray.get(reference)
        except RayError as error:
            ray.kill(worker.actor)
            self._failed += job is None
            if self._failed > 2 * self._config.workers:  # every one of them, and every one in its place
                raise RunRefusedError(f"no actor can be started: {_line(error)}") from error
            self._add()
            return [] if job is None else self._again(job, error)
        if kind == "ready":
            self._failed = 0
            self._idle.append(worker)
            return []
        if kind == "missing":
            raise ModuleNotFoundError(f"No module named '{body}'", name=body)
        if kind in ("refused", "disk"):
            raise (RunRefusedError if kind == "refused" else DiskFullError)(f"a node of the cluster: {body}")
        self._idle.append(worker)
        for name, content in files.items():
            _write(self._config.out, name, content)
        return [EpisodeRecord(**record) for record in body]

    def _again(self, job: Job, error: RayError) -> list[EpisodeRecord]:
        self._lost[job] = self._lost.get(job, 0) + 1
        if self._lost[job] < _TRIES:
            self._left.put_back(job)
            return []
        return errors_of(self._config, job, f"{_TRIES} workers were lost with it, the last one so: {_line(error)}")

    def close(self) -> None:
        """Ends every actor; one that plays is killed."""
        closing = {worker.actor.close.remote(): worker for worker in self._idle}
        if closing:
            ray.wait(list(closing), num_returns=len(closing), timeout=5)
        for worker in [*self._idle, *(worker for worker, _ in self._waiting.values())]:
            ray.kill(worker.actor)


def _write(out: Path, name: str, content: bytes) -> None:
    """A file that an episode left, whole, before its record. Raises DiskFullError, or another OSError."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise RunRefusedError(f"a node of the cluster sent a file {name!r}: expected a path in the run's folder")
    try:
        write_atomically(out / place, content)
    except OSError as error:
        raise disk_full(error, out / place) from error


def _line(error: BaseException) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _free() -> str:
    have, free = ray.cluster_resources().get("CPU", 0), ray.available_resources().get("CPU", 0)
    return f"the cluster has {have:g} processors, {free:g} of them free"


def _check_nodes(marks: dict[str, Any]) -> None:
    """Raises RunRefusedError for a node that would play otherwise than this machine, or not at all."""
    register_pickle_by_value(nodes)
    ask = ray.remote(num_cpus=0, max_retries=0)(nodes.versions_here)
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not alive:
        raise RunRefusedError(f"no node of the Ray cluster has a processor to play on: {_free()}")
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            _PACKAGE, tuple(marks["packages"])
        )
        for node in alive
    ]
    for reference in asked:
        try:
            found = ray.get(reference, timeout=START_S)
        except (RayError, GetTimeoutError) as error:
            raise RunRefusedError(f"a node of the Ray cluster does not answer: {_line(error)}") from error
        problem = nodes.complaint(found, _PACKAGE, marks["python"], marks["packages"])
        if problem is not None:
            raise RunRefusedError(problem)


@contextmanager
def _connected(workers: int) -> Iterator[None]:
    """A connection to Ray: the one that this process has, or one for the time of the run.

    Raises RunRefusedError where there is no cluster, or one of another version of Ray or Python.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get(ADDRESS, "").strip()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers, over the network
    local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    if address:
        _reach(address)
        local = {}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {ADDRESS} {address}" if address else "a Ray of this machine"
        raise RunRefusedError(f"{where} cannot be used: {_line(error)}") from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)  # ray.init puts one in its place that ends the process at once
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises RunRefusedError when nothing listens there: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in address:
        raise RunRefusedError(
            f"{ADDRESS} is {address!r}: expected HOST:PORT of a cluster's head node, e.g. head:6379, or auto"
        )
    try:
        socket.create_connection((host, int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise RunRefusedError(
            f"no Ray cluster at {ADDRESS} {address} ({error}): start one with 'ray start --head', or unset it to play "
            "on this machine alone"
        ) from error
