"""Exclusive locks: one process at a time for files that two would spoil."""

import logging
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("vlamem.locks")
WAIT_S = 20.0
"""A process that is ending is given so long to release its lock."""


class InUseError(OSError):
    """Files that another process uses; the message says which and the mend."""


def exclusive_lock(
    path: Path, what: str, mend: str = "end that process first", wait_s: float | None = None
) -> FileLock:
    """Locks `path`, a file made beside `what` it protects, until the lock is released or this process has ended.

    The operating system releases the lock of a process that was killed. Raises InUseError, with the `mend`, when
    another holds it for longer than `wait_s` (WAIT_S when not given).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)  # any thread may release it
    patience = WAIT_S if wait_s is None else wait_s
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        log.warning("%s is in use by another process: waiting for it, %g s at most", what, patience)
    try:
        lock.acquire(timeout=patience, poll_interval=0.05)
    except Timeout as error:
        raise InUseError(f"{what} is in use by another process: {mend}") from error
    return lock
