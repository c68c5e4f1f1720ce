"""A worker process, as who gives it jobs sees it: started, heard and watched for hanging and dying."""

import json
import multiprocessing
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from vlamem.sim.results.episodes import DiskFullError, EpisodeRecord
from vlamem.sim.rollout.config import RolloutConfig
from vlamem.sim.rollout.engines.protocol import GUARD, RunRefusedError
from vlamem.sim.rollout.engines.worker import THREADS, serve
from vlamem.sim.rollout.trials import Job, initial_state

START_S = 300.0
"""Libraries load and scenes are built before the first step, slowly on a busy machine."""


class WorkerProcess:
    """A process that plays the jobs of a run, one after the other.

    Attributes:
        connection: readable when the process has something to say, or is gone.
        ready: whether it has loaded what it needs.
        job: what it plays; None when it is idle.
        task: of the last job that it was given.
        lost: whether it died, or hung and was killed.
    """

    def __init__(self, config: RolloutConfig, first_task: str) -> None:
        """Starts the process, which checks policy and environment on `first_task`."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._config = config
        self._clock = context.Value("d", time.monotonic(), lock=False)
        self._process = context.Process(
            target=serve, args=(theirs, self._clock, config, first_task, os.getpid()), daemon=True
        )
        self.ready, self.lost, self.task = False, False, ""
        self.job: Job | None = None
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(THREADS)
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()

    def give(self, job: Job) -> None:
        """Has an idle process that is ready play a job."""
        self.job, self.task = job, job[0]
        self._clock.value = time.monotonic()
        with suppress(BrokenPipeError):  # it died while idle: found out when it is heard
            self.connection.send_bytes(json.dumps(job).encode())

    def hear(self) -> list[EpisodeRecord]:
        """The records that it sends, if any; for one that is lost, the errors of its episodes.

        Raises RunRefusedError when it cannot play the run or could not start, ModuleNotFoundError without the
        simulator, DiskFullError when the disk is full.
        """
        if self.connection.poll():
            return self._message()
        patience = self._config.watchdog_s if self.ready else max(self._config.watchdog_s, START_S)
        if (self.job or not self.ready) and time.monotonic() - self._clock.value > patience:
            self._process.kill()
            self._process.join()
            return self._lost(f"no control step for {patience:g} s: the worker hung and was replaced")
        return []

    def _message(self) -> list[EpisodeRecord]:
        try:
            message = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            return self._lost(f"worker process ended with exit status {self._process.exitcode}")
        body = message["body"]
        if message["kind"] == "ready":
            self.ready = True
            return []
        if message["kind"] == "refused":
            raise RunRefusedError(body)
        if message["kind"] == "missing":
            raise ModuleNotFoundError(f"No module named '{body}'", name=body)
        if message["kind"] == "disk":
            raise DiskFullError(body)
        self.job = None
        return [EpisodeRecord(**record) for record in body]

    def _lost(self, why: str) -> list[EpisodeRecord]:
        job, self.job, self.lost = self.job, None, True
        if not self.ready:
            raise RunRefusedError(f"a worker process could not start: {why}; {_hint()}")
        return [] if job is None else errors_of(self._config, job, why)

    def stop(self) -> None:
        """Ends the process; one that is idle closes its environments first."""
        self.connection.close()
        if self.job is not None or not self.ready:
            self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def errors_of(config: RolloutConfig, job: Job, why: str) -> list[EpisodeRecord]:
    """Records of a job whose worker was lost: every episode of it an error."""
    task, episodes = job
    states = {e: initial_state(config, e).name(config.split) for e in episodes}
    return [
        EpisodeRecord(config.arm, task, config.split, e, config.seed, "error", state, error=why)
        for e, state in states.items()
    ]


def _hint() -> str:
    """What to do about a worker that does not start, by what this process runs."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        return "in a notebook, keep what workers need in a module that can be imported, or play with workers=0"
    if Path(file).name in ("vlamem", "__main__.py"):
        return "'vlamem doctor' checks what it needs"
    return f"every worker runs {file} again: {GUARD}"
