"""What became of a verb that was killed, and the signals that are sent to one."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LONG_S = 900.0
"""A verb that is left alone may take so long."""


@dataclass(frozen=True)
class Killed:
    """What became of a verb that was killed.

    Attributes:
        verb: which.
        kills: how often.
        survived: after how many the same command went on, and what it left was whole.
        acknowledged: facts that were said to be done before a kill.
        lost: of these, those that were not there afterwards.
        stops: how often it stood still for a while (SIGSTOP) and went on.
    """

    verb: str
    kills: int
    survived: int
    acknowledged: int
    lost: int
    stops: int = 0


def stand_still(pid: int, seconds: float) -> None:
    """A process is stopped (SIGSTOP) for so long, and goes on."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_after(
    words: Sequence[str], after_s: float, stop_s: float = 0.0, until: Callable[[], bool] = lambda: True
) -> int:
    """Starts a verb and kills it so long after `until` is so; how often it stood still before.

    With `stop_s` it stands still for so long half-way, goes on, and is stopped once more when it is killed.
    """
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        end = time.monotonic() + LONG_S
        while child.poll() is None and not until() and time.monotonic() < end:
            time.sleep(0.01)
        stops = 0
        if stop_s:
            time.sleep(after_s / 2)
            if child.poll() is None:
                stand_still(child.pid, stop_s)
                stops = 1
            time.sleep(after_s / 2)
            child.send_signal(signal.SIGSTOP)
        else:
            time.sleep(after_s)
        child.kill()
        return stops


def whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end."""
    return path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() if path.exists() else []
