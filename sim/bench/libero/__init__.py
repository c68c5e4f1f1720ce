"""A frozen policy and its memories on LIBERO."""

from vlamem.core.bench import Bench
from vlamem.sim.bench.libero.options import LiberoBench

BENCH = Bench(
    name="libero",
    summary="a frozen policy on LIBERO alone, with AURA-Mem, and with a success memory",
    description="""\
A frozen policy on LIBERO alone, with AURA-Mem, and with a success memory; writes docs/results/libero.md, resumable.

Example: vlamem bench libero --workers 2
         vlamem bench libero --parts success --success-tasks libero_goal/put_the_bowl_on_the_plate --results runs/goal
         vlamem bench libero --preset smoke""",
    options=LiberoBench,
    run="vlamem.sim.bench.libero.run:run",
)

__all__ = ["BENCH", "LiberoBench"]
