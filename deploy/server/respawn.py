"""Serving in a child process that is started again when it dies, without importing anything a second time.

Most of a server's start is imports (torch alone takes two to three seconds). They are done once, in a parent that then
only waits; each server is forked from it and shares their memory, the way web servers with a preloaded application do
it. The parent computes nothing: no thread and no device may be alive where a process forks.
"""

import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

log = logging.getLogger("vlamem.serve")
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAILED_STARTS = 3
_SETTLED_S = 10.0
_LONGEST_PAUSE_S = 5.0


class Child:
    """What a forked server knows of its parent.

    A server whose parent is gone ends: at once while it loads, and by its own word once it listens.

    Attributes:
        port: at which the one before it listened; None for the first.
        alone: whether the parent is gone.
    """

    def __init__(self, port: int | None, lifeline: int, tell: int) -> None:
        """`lifeline` can be read (it ends) when the parent is gone; to `tell` the port is written."""
        self.port, self.alone, self._tell = port, False, tell
        self._gone: Callable[[], object] = lambda: os._exit(1)
        threading.Thread(target=self._watch, args=(lifeline,), name="lifeline", daemon=True).start()

    def listening(self, port: int, gone: Callable[[], object]) -> None:
        """Tells the parent that it listens, and where; `gone` is called in another thread when there is none."""
        self._gone = gone
        with suppress(BrokenPipeError):
            os.write(self._tell, f"{port}\n".encode())
        os.close(self._tell)  # whoever is forked from here on does not hold it open

    def _watch(self, lifeline: int) -> None:
        os.read(lifeline, 1)
        self.alone = True
        self._gone()


@dataclass(frozen=True)
class _Ending:
    """How a child ended: its exit status (minus the signal that killed it), the port, None when it never listened."""

    code: int
    port: int | None

    @property
    def status(self) -> int:
        """What a shell would call it."""
        return self.code if self.code >= 0 else 128 - self.code

    @property
    def words(self) -> str:
        if self.code >= 0:
            return f"ended with status {self.code}"
        known = {int(number): number.name for number in signal.Signals}
        return f"was killed by {known.get(-self.code, f'signal {-self.code}')}"


def respawn(preload: Callable[[], None]) -> Child:
    """Forks a server after `preload` and returns in it; the parent stays here, and starts another when one dies.

    The parent ends with SystemExit: when it is told to (SIGTERM, Ctrl-C, SIGHUP, which it hands on) and when a server
    ended by itself without an error, with 0; with a server's own status when that failed while it was told to end,
    when the first one never listened, or three in a row did not. One that dies within ten seconds waits a moment, at
    most 5 s, before the next.

    Raises ValueError on systems that cannot fork, and when `preload` leaves threads, which do not survive a fork.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError(f"--respawn forks, which is safe on Linux alone, and this is {sys.platform}: leave it out")
    parent = _Parent()
    preload()
    gc.collect()
    gc.freeze()  # a collection in a child would write to what it shares with the parent, and so copy it
    return parent.keep()


class _Parent:
    def __init__(self) -> None:
        self._pid: int | None = None
        self._told: int | None = None
        self._held = -1
        self._before = {number: signal.getsignal(number) for number in _ENDINGS}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._hand_on)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored a child cannot be waited for

    def keep(self) -> Child:
        port: int | None = None
        failed = quick = 0
        while True:
            started = time.monotonic()
            child = self._fork(port)
            if isinstance(child, Child):
                return child
            ending = self._wait(child)
            if self._told is not None:
                raise SystemExit(0 if ending.code in (0, -self._told) else ending.status)
            if ending.code == 0:
                raise SystemExit(0)
            failed = 0 if ending.port is not None else failed + 1
            port = ending.port or port
            if port is None or failed == _FAILED_STARTS:
                log.error("the server %s before it listened", ending.words)
                raise SystemExit(ending.status)
            quick = 0 if time.monotonic() - started > _SETTLED_S else quick + 1
            log.warning("the server %s: starting it again", ending.words)
            if quick > 1:
                time.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2 ** (quick - 1)))

    def _fork(self, port: int | None) -> Child | int:
        """A child's view in the child, the end of the pipe that it tells in the parent."""
        hear, tell = os.pipe()
        lifeline, held = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        open_to = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        with warnings.catch_warnings(record=True) as found:  # Python warns in the parent of threads that there are
            warnings.simplefilter("always")
            pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which hands it on
            for end in (hear, held):
                os.close(end)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, open_to)
            return Child(port, lifeline, tell)
        for end in (lifeline, tell):
            os.close(end)
        if found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            names = ", ".join(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))
            raise ValueError(
                f"importing this policy starts threads, which do not survive a fork: leave --respawn out ({names})"
            )
        self._pid, self._held = pid, held
        signal.pthread_sigmask(signal.SIG_SETMASK, open_to)
        return hear

    def _wait(self, hear: int) -> _Ending:
        assert self._pid is not None
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)  # its number stays its own until it is waited for
        open_to = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
        _, code = os.waitpid(self._pid, 0)
        self._pid = None
        os.close(self._held)
        os.set_blocking(hear, False)  # a process that the server forked may hold the other end open
        said = b""
        with suppress(BlockingIOError):
            said = os.read(hear, 64)
        os.close(hear)
        signal.pthread_sigmask(signal.SIG_SETMASK, open_to)
        return _Ending(os.waitstatus_to_exitcode(code), int(said) if said else None)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        """To the server; where there is none, nothing is left to do."""
        if self._pid is None and self._told is None:
            raise SystemExit(0)
        self._told = number
        if self._pid is not None:
            os.kill(self._pid, number)
