"""Serving in a child process that is started again when it dies, without importing anything a second time.

Most of a server's start is imports (torch alone takes two to three seconds). They are done once, in a parent that then
only waits; each server is forked from it and shares their memory, as in web servers with a preloaded application. The
parent computes nothing: no thread and no device may be alive where a process forks.
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
_TERMINATION = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FAILED_STARTS = 3
_SETTLED_S = 10.0
_LONGEST_PAUSE_S = 5.0


class Child:
    """What a forked server knows of its parent.

    A server whose parent is gone ends: at once while it loads, and by a callback of its own once it listens.

    Attributes:
        port: at which the one before it listened; None for the first.
        orphaned: whether the parent is gone.
    """

    def __init__(self, port: int | None, parent_pipe: int, port_pipe: int) -> None:
        """`parent_pipe` reaches its end when the parent is gone; to `port_pipe` the port is written."""
        self.port, self.orphaned, self._port_pipe = port, False, port_pipe
        self._on_orphaned: Callable[[], object] = lambda: os._exit(1)
        threading.Thread(target=self._watch, args=(parent_pipe,), name="parent-watch", daemon=True).start()

    def listening(self, port: int, on_orphaned: Callable[[], object]) -> None:
        """Reports to the parent that it listens at `port`; `on_orphaned` is called in a thread if that is gone."""
        self._on_orphaned = on_orphaned
        with suppress(BrokenPipeError):
            os.write(self._port_pipe, f"{port}\n".encode())
        os.close(self._port_pipe)  # whoever is forked from here on does not hold it open

    def _watch(self, parent_pipe: int) -> None:
        os.read(parent_pipe, 1)
        self.orphaned = True
        self._on_orphaned()


@dataclass(frozen=True)
class _Exit:
    """How a child ended: its exit code (minus the signal that killed it), the port, None when it never listened."""

    code: int
    port: int | None

    @property
    def status(self) -> int:
        """Exit status as a shell reports it."""
        return self.code if self.code >= 0 else 128 - self.code

    @property
    def description(self) -> str:
        if self.code >= 0:
            return f"ended with status {self.code}"
        known = {int(number): number.name for number in signal.Signals}
        return f"was killed by {known.get(-self.code, f'signal {-self.code}')}"


def respawn(preload: Callable[[], None]) -> Child:
    """Forks a server after `preload` and returns in it; the parent stays here, and starts another when one dies.

    The parent forwards SIGTERM, SIGINT and SIGHUP to the server. A signal that was ignored when the parent started (as
    nohup and a script's background jobs have it) is ignored by the server as well, unless that handles it.

    The parent ends with SystemExit: with 0 when it got such a signal and the server ended, and when a server ended by
    itself without an error; with a server's own status when that failed after such a signal, when the first one never
    listened, or three in a row did not. One that dies within ten seconds waits a moment, at most 5 s, before the next.

    Raises ValueError on systems that cannot fork, and when `preload` leaves threads, which do not survive a fork.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError(f"--respawn forks, which is safe on Linux alone, and this is {sys.platform}: leave it out")
    parent = _Parent()
    preload()
    gc.collect()
    gc.freeze()  # a collection in a child would write to what it shares with the parent, and so copy it
    return parent.supervise()


class _Parent:
    def __init__(self) -> None:
        self._pid: int | None = None
        self._ended_by: int | None = None
        self._held = -1
        self._before = {number: signal.getsignal(number) for number in _TERMINATION}
        self._ignored = {number for number, handler in self._before.items() if handler is signal.SIG_IGN}
        for number in _TERMINATION:
            signal.signal(number, self._forward)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored a child cannot be waited for

    def supervise(self) -> Child:
        port: int | None = None
        failed = quick = 0
        while True:
            started = time.monotonic()
            child = self._fork(port)
            if isinstance(child, Child):
                return child
            ending = self._wait(child)
            if self._ended_by is not None:
                raise SystemExit(0 if ending.code in (0, -self._ended_by) else ending.status)
            if ending.code == 0:
                raise SystemExit(0)
            failed = 0 if ending.port is not None else failed + 1
            port = ending.port or port
            if port is None or failed == _FAILED_STARTS:
                log.error("the server %s before it listened", ending.description)
                raise SystemExit(ending.status)
            quick = 0 if time.monotonic() - started > _SETTLED_S else quick + 1
            log.warning("the server %s: starting it again", ending.description)
            if quick > 1:
                time.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2 ** (quick - 1)))

    def _fork(self, port: int | None) -> Child | int:
        """In the child its view of the parent, in the parent the pipe that the child writes its port to."""
        port_pipe, child_port_pipe = os.pipe()
        child_parent_pipe, parent_pipe = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATION)
        with warnings.catch_warnings(record=True) as found:  # Python warns in the parent of threads that there are
            warnings.simplefilter("always")
            pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which forwards it
            for end in (port_pipe, parent_pipe):
                os.close(end)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return Child(port, child_parent_pipe, child_port_pipe)
        for end in (child_parent_pipe, child_port_pipe):
            os.close(end)
        if found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            names = ", ".join(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))
            raise ValueError(
                f"importing this policy starts threads, which do not survive a fork: leave --respawn out ({names})"
            )
        self._pid, self._held = pid, parent_pipe
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return port_pipe

    def _wait(self, port_pipe: int) -> _Exit:
        assert self._pid is not None
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)  # its number stays its own until it is waited for
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATION)
        _, code = os.waitpid(self._pid, 0)
        self._pid = None
        os.close(self._held)
        os.set_blocking(port_pipe, False)  # a process that the server forked may hold the other end open
        port = b""
        with suppress(BlockingIOError):
            port = os.read(port_pipe, 64)
        os.close(port_pipe)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return _Exit(os.waitstatus_to_exitcode(code), int(port) if port else None)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        """Sends a signal on to the server; where there is none, this process ends."""
        if number not in self._ignored:  # one that was ignored at the start may leave the server as it is
            if self._pid is None and self._ended_by is None:
                raise SystemExit(0)
            self._ended_by = number
        if self._pid is not None:
            os.kill(self._pid, number)
