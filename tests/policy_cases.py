"""What loading a policy imports."""

import subprocess
import sys

_LATE = """
import os, sys, warnings
from vlamem.deploy.server.assembly import preload
from vlamem.policies.registry import find_policy, load_policy

source = find_policy(sys.argv[1])
preload(sys.argv[1])
with warnings.catch_warnings(record=True) as threads:
    warnings.simplefilter("always")
    if os.fork() == 0:
        os._exit(0)
    os.wait()
assert not threads, [str(w.message) for w in threads]
before = set(sys.modules)
load_policy(source)
print("late:", *sorted(set(sys.modules) - before))
"""


def imported_late(name: str) -> list[str]:
    """Modules that `load_policy` imports after a server's `preload`, which leaves no threads, in another process."""
    words = [sys.executable, "-c", _LATE, name]
    found = subprocess.run(words, check=True, capture_output=True, text=True, timeout=1500)
    return found.stdout.rpartition("late:")[2].split()
