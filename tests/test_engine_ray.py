"""sim/rollout/engines/ray.py on a real cluster: the tests of ray_cluster_cases, in a process of their own.

Ray forks to start the processes of a cluster, which a process in which JAX has started must not.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs vlamem[ray]")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("which", ["driver", "not driver"])  # each with a cluster of its own: the first kills a node
def test_runs_on_a_cluster_equal_those_without(which: str) -> None:
    cases = Path(__file__).with_name("ray_cluster_cases.py")
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-k", which, str(cases)]
    done = subprocess.run(words, env=alone, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert set(done.stdout.split()[0]) == {"."}  # none was skipped
