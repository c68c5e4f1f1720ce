"""AURA-Mem and its controls on synthetic streams."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.synthetic.options import SyntheticBench

BENCH = Bench(
    name="synthetic",
    summary="AURA-Mem and its controls on synthetic streams",
    description="""\
AURA-Mem and every control on synthetic streams; writes docs/results/synthetic.md and synthetic.json, resumable.

Example: vlamem bench synthetic --preset full""",
    options=SyntheticBench,
    run="vlamem.sim.bench.synthetic.run:run",
    environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
)

__all__ = ["BENCH", "SyntheticBench"]
