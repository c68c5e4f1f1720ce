"""A success memory in initial states that never come again."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.transfer.options import TransferBench

BENCH = Bench(
    name="transfer",
    summary="a success memory under a local shift, in initial states that never come again",
    description="""\
Consecutive trials under a local shift, no initial state twice, with a residual and with an elite prior; writes
transfer.md.

Example: vlamem bench transfer --preset smoke --results runs/transfer-smoke

A stopped bench goes on with the same command. The default is about an hour on 2 cores.""",
    options=TransferBench,
    run="vlamem.sim.bench.transfer.run:run",
)

__all__ = ["BENCH", "TransferBench"]
