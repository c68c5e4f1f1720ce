"""What kills, stops, changed bits and wrong messages cost: a robot its safety, or anyone an acknowledged fact."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.faults.options import FaultsOptions

BENCH = Bench(
    name="faults",
    summary="kills, stops, changed bits, wrong messages and files: what is lost",
    description="""\
Kills verbs at random moments, stops controllers, changes bits of every kind of file, and sends what is no message;
writes docs/results/faults.md.

Presets: ci one minute, small two, quick five, full an hour, on a machine that does nothing else.

Example: vlamem bench faults --preset ci""",
    options=FaultsOptions,
    run="vlamem.sim.bench.faults.run:run",
    unwind=True,
)

__all__ = ["BENCH", "FaultsOptions"]
