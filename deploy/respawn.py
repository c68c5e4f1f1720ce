"""Serving in a child process that is started again when it dies, without importing anything a second time.

Most of a server's start is imports (torch alone takes two to three seconds). They are done once, in a parent that then
only waits; each server is forked from it and shares their memory, the way web servers with a preloaded application do
it. The parent computes nothing: no thread and no device may be alive where a process forks.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger("vlamem.serve")
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAILED_STARTS = 3
_SETTLED_S = 10.0
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Child:
    """What a forked server knows.

    Attributes:
        port: at which the one before it listened; None for the first.
        lifeline: file descriptor that can be read (it ends) when the parent is gone.
        tell: file descriptor to the parent.
    """

    port: int | None
    lifeline: int
    tell: int

    def listening(self, port: int) -> None:
        """Tells the parent that it listens, and where."""
        with suppress(BrokenPipeError):
            os.write(self.tell, f"{port}\n".encode())


@dataclass(frozen=True)
class _Ending:
    """How a child ended: its exit status (128 + signal when one killed it), the port, None when it never listened."""

    status: int
    port: int | None

    @property
    def words(self) -> str:
        if self.status > 128:
            return f"was killed by {signal.Signals(self.status - 128).name}"
        return f"ended with status {self.status}"


def respawn(preload: Callable[[], None]) -> Child:
    """Forks a server after `preload` and returns in it; the parent stays here, and starts another when one dies.

    The parent ends with SystemExit: with 0 when it was told to end (SIGTERM, Ctrl-C, SIGHUP, which it hands on) or a
    server ended by itself without an error; with a server's own status when the first never listened, or three in a row
    did not. One that dies within ten seconds waits a moment, at most 5 s, before the next.

    Raises ValueError on systems that cannot fork, and when `preload` started threads.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError(f"--respawn forks, which is safe on Linux alone, and this is {sys.platform}: leave it out")
    preload()
    if threading.active_count() > 1:
        names = ", ".join(t.name for t in threading.enumerate() if t is not threading.main_thread())
        raise ValueError(f"importing this policy starts threads ({names}), which do not survive a fork: no --respawn")
    return _Parent().keep()


class _Parent:
    def __init__(self) -> None:
        self._pid: int | None = None
        self._told = False
        self._before = {number: signal.getsignal(number) for number in _ENDINGS}

    def keep(self) -> Child:
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._hand_on)
        port: int | None = None
        failed = quick = 0
        while True:
            started = time.monotonic()
            child = self._fork(port)
            if isinstance(child, Child):
                return child
            ending = self._wait(child)
            if self._told or ending.status == 0:
                raise SystemExit(0 if self._told else ending.status)
            failed = 0 if ending.port is not None else failed + 1
            port = ending.port or port
            if port is None or failed == _FAILED_STARTS:
                log.error("the server %s before it listened", ending.words)
                raise SystemExit(ending.status)
            quick = 0 if time.monotonic() - started > _SETTLED_S else quick + 1
            log.warning("the server %s: starting it again", ending.words)
            time.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2 ** (quick - 1)) if quick > 1 else 0)
            if self._told:
                raise SystemExit(0)

    def _fork(self, port: int | None) -> Child | int:
        """A child's view in the child, the end of the pipe that it tells in the parent."""
        hear, tell = os.pipe()
        lifeline, held = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which hands it on
            for end in (hear, held):
                os.close(end)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return Child(port, lifeline, tell)
        self._pid = pid
        self._held = held
        for end in (lifeline, tell):
            os.close(end)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return hear

    def _wait(self, hear: int) -> _Ending:
        assert self._pid is not None
        _, code = os.waitpid(self._pid, 0)
        self._pid = None
        os.close(self._held)
        with os.fdopen(hear) as said:
            port = said.read().strip()
        status = os.waitstatus_to_exitcode(code)
        return _Ending(status if status >= 0 else 128 - status, int(port) if port else None)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        if self._pid is not None:
            os.kill(self._pid, number)
