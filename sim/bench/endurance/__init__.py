"""Bytes that a durable memory writes."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.endurance.options import EnduranceBench

BENCH = Bench(
    name="endurance",
    summary="bytes that a durable memory writes",
    description="""\
Bytes that durable memory writes: AURA, always-write and a growing KV log; writes docs/results/endurance.md.

Example: vlamem bench endurance --preset quick --results runs/endurance""",
    options=EnduranceBench,
    run="vlamem.sim.bench.endurance.run:run",
)

__all__ = ["BENCH", "EnduranceBench"]
