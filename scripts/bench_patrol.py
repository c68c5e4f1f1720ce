"""One stream of control steps without a reset, with and without memory; writes docs/results/patrol.md and patrol.json.

Example: vlamem bench patrol --workers 2
         vlamem bench patrol --steps 2000 --out runs/patrol-short --results runs/patrol-short

The default takes about 25 minutes on two cores.
"""

import shlex

from vlamem.scripts.config import complain, load_config
from vlamem.sim.bench.patrol.options import PatrolBench


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when a stream broke."""
    bench = load_config(PatrolBench, "bench patrol", arguments, __doc__ or "")
    from vlamem.sim.bench.patrol.report import write_page
    from vlamem.sim.bench.patrol.run import PatrolError, run

    try:
        found = run(bench, lambda line: print(line, flush=True))
    except PatrolError as error:
        complain("bench patrol", str(error))
        return 1
    page, twin = write_page(found, bench, shlex.join(["vlamem", "bench", "patrol", *arguments]))
    print(f"{page}\n{twin}")
    return 0
