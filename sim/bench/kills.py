"""Kills a process in the middle of what it writes and keeps what it had said of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence


def said_until_killed(module: Sequence[str], after_s: float) -> list[list[str]]:
    """Runs `python -m` with `module` and its arguments, and kills it with SIGKILL `after_s` seconds after its first
    line; the lines that it wrote to standard output as words, without one that was cut short.

    Raises OSError when it ends without having said anything.
    """
    child = subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        lines = [child.stdout.readline()]
        if not lines[0]:
            raise OSError(f"{module[0]} did not begin: it ended with status {child.wait()}")
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
    return [line.decode().split() for line in lines if line.endswith(b"\n")]
