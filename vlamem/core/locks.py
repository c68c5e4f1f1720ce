"""One process at a time for files that two would spoil."""

import logging
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("vlamem.serve")
WAIT_S = 20.0
"""A server that is ending is given so long to let go: connections are closed, labels carried out."""


class InUseError(OSError):
    """Files that another process has; the message says which and the mend."""


def sole(path: Path, what: str, wait_s: float | None = None) -> FileLock:
    """Locks `path` (a file made beside what it stands for) until the lock is released or this process has ended.

    The operating system lets go of a lock whose process was killed. Raises InUseError when another holds it for longer
    than `wait_s`, WAIT_S when not given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, thread_local=False)  # whoever closes what it stands for lets go of it
    patience = WAIT_S if wait_s is None else wait_s
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        log.warning("%s is in use by another process: waiting for it, %g s at most", what, patience)
    try:
        lock.acquire(timeout=patience, poll_interval=0.05)
    except Timeout as error:
        raise InUseError(f"{what} is in use by another process: end that server, or give another --state") from error
    return lock
