"""Exclusive locks: one process at a time for files that two would spoil."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vlamem.core.files import make_folder

log = logging.getLogger("vlamem.locks")
WAIT_S = 20.0
"""A process that is ending is given so long to release its lock."""


class InUseError(OSError):
    """Files that another process uses; the message says which and the mend."""


class ExclusiveLock:
    """A lock that is held; `release` lets the next process have it, from any thread.

    Someone may remove the lock's file, and another process then lock a new one: who writes asks `check` first.
    """

    def __init__(self, lock: FileLock, path: Path, what: str, mend: str) -> None:
        self._lock, self._path, self._what, self._mend = lock, path, what, mend
        self._inode: int | None = _inode(path)

    def held(self) -> bool:
        """Whether the lock's file is still the one that is locked."""
        return self._inode is not None and _inode(self._path) == self._inode

    def check(self) -> None:
        """Raises InUseError when the lock's file is no longer the one that is locked."""
        if not self.held():
            raise InUseError(
                f"{self._what} may be in use by another process, since {self._path} was removed: {self._mend}, then "
                "start this one again"
            )

    def release(self) -> None:
        """Lets the next process have it."""
        self._inode = None
        self._lock.release()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def exclusive_lock(
    path: Path, what: str, mend: str = "end that process first", wait_s: float | None = None
) -> ExclusiveLock:
    """Locks `path`, a file made beside `what` it protects, until the lock is released or this process has ended.

    The operating system releases the lock of a process that was killed. Raises InUseError, with the `mend`, when
    another holds it for longer than `wait_s` (WAIT_S when not given).
    """
    make_folder(path.parent)
    patience = WAIT_S if wait_s is None else wait_s
    lock = FileLock(path, thread_local=False)  # any thread may release it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is in use by another process: waiting for it, %g s at most", what, patience)
        try:
            lock.acquire(timeout=patience, poll_interval=0.05)
        except Timeout as error:
            raise InUseError(f"{what} is in use by another process: {mend}") from error
    return ExclusiveLock(lock, path, what, mend)


@contextmanager
def one_writer(out: Path) -> Iterator[None]:
    """While the context is open no other process that asks for it writes to the folder or file `out`.

    The lock's file is beside it: `out` may have to be missing still. Raises InUseError when another process has it.
    """
    path = out.absolute()
    mend = "wait for its end, or choose another --out"
    lock = exclusive_lock(path.with_name(f".{path.name}.lock"), str(out), mend)
    try:
        yield
    finally:
        lock.release()
