"""Stores episodes off the control thread, and keeps what could not be stored until it can."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from vlamem.memory.success.experience.episode import Episode
from vlamem.memory.success.experience.layout import EntryError
from vlamem.memory.success.experience.records import Committed, StoredTrial
from vlamem.memory.success.experience.trace import Trace, Verdict
from vlamem.memory.success.store.errors import StoreError

RETRY_S = 5.0


@runtime_checkable
class Sink(Protocol):
    """Where a writer writes to; a SuccessMemory is one."""

    def episode_of(self, trace: Trace, verdict: Verdict, made: float | None = None) -> Episode | None:
        """What may be stored of an ended episode; None when nothing may be stored."""
        ...

    def commit(self, episode: Episode) -> Committed:
        """Stores a verified episode."""
        ...

    def credit(self, used: Int[np.ndarray, "N"], success: bool) -> None:
        """Counts the outcome of an episode on the segments that were used in it."""
        ...

    def trial_of(self, trace: Trace, verdict: Verdict, made: float | None = None) -> StoredTrial | None:
        """The episode as a residual prior learns from it; None where none does."""
        ...

    def add_trial(self, trial: StoredTrial) -> None:
        """Stores a trial."""
        ...


@dataclass(frozen=True)
class _Job:
    episode: Episode | None
    used: Int[np.ndarray, "U"]
    success: bool | None
    trial: StoredTrial | None = None


class BackgroundWriter:
    """Commits to a success memory from a thread of its own; control never waits.

    A full disk or another process's long write loses nothing: the episode is kept and tried again, in order. An episode
    that may not be stored, or a damaged file, is reported and dropped; so is one at which anything else is raised.

    Args:
        memory: to write to.
        report: called with each problem, from the writer's thread.
        retry_s: pause before a commit is tried again.
        most_kept: episodes that are kept at most while the disk is full; the oldest goes first, and is reported.
    """

    def __init__(
        self,
        memory: Sink,
        report: Callable[[str], None] = lambda line: None,
        retry_s: float = RETRY_S,
        most_kept: int = 1000,
    ) -> None:
        self._memory, self._report, self._retry_s, self._most = memory, report, retry_s, most_kept
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.committed: list[Committed] = []
        self._thread = threading.Thread(target=self._run, name="success-memory-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Episodes and credits that are not on disk yet."""
        with self._changed:
            return len(self._jobs)

    def submit(
        self,
        episode: Episode | None,
        used: Int[np.ndarray, "U"] | None = None,
        success: bool | None = None,
        trial: StoredTrial | None = None,
    ) -> None:
        """Hands over an episode, the outcome of the episode in which segments `used` were used, and the same episode as
        a trial of a residual prior; returns at once."""
        with self._changed:
            if self._closing:
                raise RuntimeError("this writer is closed: make another")
            if len(self._jobs) >= self._most:
                self._jobs.popleft()
                self._report(f"more than {self._most} episodes wait to be stored: the oldest was given up")
            self._jobs.append(_Job(episode, np.zeros(0, np.int64) if used is None else used, success, trial))
            self._changed.notify_all()

    def observe_episode(self, trace: Trace, verdict: Verdict, made: float | None = None) -> None:
        """As SuccessMemory.observe_episode, from the writer's thread; returns at once."""
        episode, trial = self._memory.episode_of(trace, verdict, made), self._memory.trial_of(trace, verdict, made)
        self.submit(episode, trace.used, verdict.success, trial)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Waits until everything is on disk; False when it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def close(self, timeout_s: float = 30.0) -> tuple[Episode, ...]:
        """Stores what waits and ends the thread; gives the episodes that could not be stored."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            return tuple(j.episode for j in self._jobs if j.episode is not None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                job = self._jobs[0]
            try:
                self._do(job)
            except OSError as error:  # a full disk or another writer: later it may be different
                self._report(f"kept for later: {error}")
                with self._changed:
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, self._retry_s)
                continue
            except (EntryError, StoreError) as error:
                self._report(f"not stored: {error}")
            except Exception as error:  # of one episode: the thread is for those after it, too
                self._report(f"not stored: {type(error).__name__}: {error}")
            with self._changed:
                if self._jobs and self._jobs[0] is job:
                    self._jobs.popleft()
                self._changed.notify_all()

    def _do(self, job: _Job) -> None:
        if job.episode is not None:
            self.committed.append(self._memory.commit(job.episode))
        if job.trial is not None:  # before the credit, which counts again at a second try
            self._memory.add_trial(job.trial)
        if job.success is not None and len(job.used):
            self._memory.credit(job.used, job.success)
