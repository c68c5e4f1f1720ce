"""How a server and a robot keep their promises, alone and under faults: two processes over loopback."""

from vlamem.core.bench import Bench
from vlamem.deploy.bench.options import DeployBench, DeployOptions

BENCH = Bench(
    name="deploy",
    summary="a server and a robot as two processes, quiet and under faults",
    description="""\
A server and a robot as two processes: timing, faults, killed controllers, abuse; writes docs/results/deploy.md.

Presets: ci two minutes, quick five, full ten minutes quiet and ten under faults, on a machine that does nothing else.

Example: vlamem bench deploy --preset ci""",
    options=DeployOptions,
    run="vlamem.deploy.bench.run:run",
    unwind=True,
)

__all__ = ["BENCH", "DeployBench", "DeployOptions"]
