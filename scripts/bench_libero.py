"""A frozen policy on LIBERO alone, with AURA-Mem, and with a success memory; writes docs/results/libero.md, resumable.

Example: vlamem bench libero --workers 2
         vlamem bench libero --parts success --success-tasks libero_goal/put_the_bowl_on_the_plate --results runs/goal
         vlamem bench libero --preset smoke
"""

import shlex

from tqdm import tqdm

from vlamem.scripts.bars import play_with_bar
from vlamem.scripts.config import load_config
from vlamem.sim.bench.libero.options import LiberoBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    bench = load_config(LiberoBench, "bench libero", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.libero.run import run

    command = shlex.join(["vlamem", "bench", "libero", *arguments])
    return play_with_bar("bench libero", lambda begin, progress: run(bench, command, begin, progress, tqdm.write))
