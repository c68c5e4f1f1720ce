"""Where in a frozen policy a memory's feature is read."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.taps.options import TapsBench

BENCH = Bench(
    name="taps",
    summary="where in a frozen policy a cue can be read, and what a tick costs there",
    description="""\
Which tap of a frozen policy carries what a memory must remember, and what a tick costs there; writes taps.md.

Linear probes, tested on episodes that they were not trained on, at every tap of every policy that is named.

Example: PYTHONPATH=tests vlamem bench taps --policies tiny lerobot_cases:act lerobot_cases:smolvla""",
    options=TapsBench,
    run="vlamem.sim.bench.taps.run:run",
)

__all__ = ["BENCH", "TapsBench"]
