"""A memory fitted to demonstrations alone, in closed loop."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.demonstrations.options import DemonstrationsBench

BENCH = Bench(
    name="demonstrations",
    summary="a memory fitted to demonstrations alone, in closed loop",
    description="""\
A gate of 'vlamem fit' in closed loop beside its controls; writes docs/results/demonstrations.md and .json, resumable.

Example: vlamem bench demonstrations --gate runs/fit/gate.safetensors --episodes 60""",
    options=DemonstrationsBench,
    run="vlamem.sim.bench.demonstrations.run:run",
)

__all__ = ["BENCH", "DemonstrationsBench"]
