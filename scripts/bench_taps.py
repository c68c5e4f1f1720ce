"""Which tap of a frozen policy carries what a memory must remember, and what a tick costs there; writes taps.md.

Linear probes, tested on episodes that they were not trained on, at every tap of every policy that is named.

Example: PYTHONPATH=tests vlamem bench taps --policies tiny lerobot_cases:act lerobot_cases:smolvla
"""

import shlex

from vlamem.scripts.config import load_config
from vlamem.sim.bench.taps.options import TapsBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    bench = load_config(TapsBench, "bench taps", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.taps.run import run

    command = shlex.join(["vlamem", "bench", "taps", *arguments])
    page, twin = run(bench, command, lambda text: print(text, flush=True))
    print(f"{page}\n{twin}")
    return 0
