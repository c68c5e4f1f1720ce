"""Episodes an hour of vlamem rollout and lerobot-eval side by side, and where the time goes; writes throughput.md.

On the tabletop suite and on LIBERO, which is left out with a line where it is not installed. With --families, what a
memory's tick costs beside a plan, for each policy that is named.

Needs the plugins: pip install ./plugins/lerobot_policy_vlamem ./plugins/lerobot_env_vlamem

Example: vlamem bench throughput --preset smoke --results runs/throughput-smoke
"""

import shlex

from vlamem.scripts.config import load_config
from vlamem.sim.bench.throughput.options import ThroughputBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    bench = load_config(ThroughputBench, "bench throughput", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.throughput.run import run

    command = shlex.join(["vlamem", "bench", "throughput", *arguments])
    page, twin = run(bench, command, lambda text: print(text, flush=True))
    print(f"{page}\n{twin}")
    return 0
