"""Runs a process, kills it while it writes, and returns what it had printed until then."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence


def output_until_killed(module: Sequence[str], after_s: float) -> list[list[str]]:
    """Runs `python -m` with `module` and its arguments, and sends it SIGKILL some time after its first line.

    Args:
        module: name of the module, then its arguments.
        after_s: from the first line of its standard output to the signal [s].

    Gives the lines of its standard output, each split at blanks, without a last one cut short. Raises OSError when it
    ends without a line.
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
