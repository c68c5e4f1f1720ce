"""Episodes an hour beside lerobot-eval."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.throughput.options import ThroughputBench

BENCH = Bench(
    name="throughput",
    summary="episodes an hour beside lerobot-eval, and where the time goes",
    description="""\
Episodes an hour of vlamem rollout and lerobot-eval side by side, and where the time goes; writes throughput.md.

On the tabletop suite and on LIBERO, which is left out with a line where it is not installed. With --families, what a
memory's tick costs beside a plan, for each policy that is named.

Needs the plugins: pip install ./plugins/lerobot_policy_vlamem ./plugins/lerobot_env_vlamem

Example: vlamem bench throughput --preset smoke --results runs/throughput-smoke""",
    options=ThroughputBench,
    run="vlamem.sim.bench.throughput.run:run",
)

__all__ = ["BENCH", "ThroughputBench"]
