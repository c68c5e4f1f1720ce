"""A success memory that fills over hundreds of trials."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.deployment.options import DeploymentBench

BENCH = Bench(
    name="deployment",
    summary="hundreds of trials under a local shift, with a success memory that fills",
    description="""\
Hundreds of consecutive trials under a local shift, with and without a success memory; writes deployment.md.

Example: vlamem bench deployment --preset smoke --results runs/deployment-smoke

A stopped bench goes on with the same command. The default is about 8 core-hours.""",
    options=DeploymentBench,
    run="vlamem.sim.bench.deployment.run:run",
)

__all__ = ["BENCH", "DeploymentBench"]
