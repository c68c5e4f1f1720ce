"""Whether there is a simulator, found without importing it: MuJoCo draws with what it found when it was imported."""

from importlib.util import find_spec

import pytest

needs_simulator = pytest.mark.skipif(find_spec("robosuite") is None, reason="needs the simulator: make setup")
