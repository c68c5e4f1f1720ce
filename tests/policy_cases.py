"""What loading a policy imports."""

import subprocess
import sys

_LATE = """
import sys
from vlamem.policies.registry import find_policy, load_policy, preload_policy

source = find_policy(sys.argv[1])
preload_policy(source)
before = set(sys.modules)
load_policy(source)
print("late:", *sorted(set(sys.modules) - before))
"""


def imported_late(name: str) -> list[str]:
    """Modules that `load_policy` imports after `preload_policy`, in a process of their own."""
    words = [sys.executable, "-c", _LATE, name]
    found = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300)
    return found.stdout.rpartition("late:")[2].split()
