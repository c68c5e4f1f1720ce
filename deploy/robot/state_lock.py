"""One controller at a time has a robot's state folder."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from vlamem.core.files import make_folder
from vlamem.deploy.robot.outbox import LinkError

_WAIT_S = 2.0
"""A controller that is ending is given so long."""


class StateLock:
    """Locks a robot's state folder for this process, until it is released or the process has ended.

    Raises LinkError when another controller has it.
    """

    def __init__(self, folder: Path, wait_s: float = _WAIT_S) -> None:
        make_folder(folder)
        self._file: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    other = os.pread(self._file, 32, 0).decode(errors="replace").strip()
                    self.release()
                    raise LinkError(
                        f"{folder} is in use by another controller (process {other}), and a robot has one: end that, "
                        "or give another --state"
                    ) from error
            time.sleep(0.02)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Lets the next controller have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
