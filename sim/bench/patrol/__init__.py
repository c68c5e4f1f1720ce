"""One long stream without a reset."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.patrol.options import PatrolBench

BENCH = Bench(
    name="patrol",
    summary="one stream of 100,000 control steps without a reset: recall, state and process memory along it",
    description="""\
One stream of control steps without a reset, with and without memory; writes docs/results/patrol.md and patrol.json.

Example: vlamem bench patrol --workers 2
         vlamem bench patrol --steps 2000 --out runs/patrol-short --results runs/patrol-short

The default takes about 25 minutes on two cores.""",
    options=PatrolBench,
    run="vlamem.sim.bench.patrol.run:run",
)

__all__ = ["BENCH", "PatrolBench"]
