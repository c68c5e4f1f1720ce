"""Which LIBERO tasks the scripted experts solve."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.libero_experts.options import LiberoExpertsBench

BENCH = Bench(
    name="libero-experts",
    summary="which LIBERO tasks the scripted experts solve",
    description="""\
Which LIBERO tasks the scripted experts solve, from the benchmark's stored initial states; writes
docs/results/libero_experts.md and libero_experts.json. Resumable; nothing is rendered.

Example: vlamem bench libero-experts --suites libero_object --episodes 10 --workers 2""",
    options=LiberoExpertsBench,
    run="vlamem.sim.bench.libero_experts.run:run",
)

__all__ = ["BENCH", "LiberoExpertsBench"]
