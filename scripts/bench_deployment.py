"""Hundreds of consecutive trials under a local shift, with and without a success memory; writes deployment.md.

Example: vlamem bench deployment --preset smoke --results runs/deployment-smoke

A stopped bench goes on with the same command. The default is about 8 core-hours.
"""

import shlex

from vlamem.scripts.config import load_config, preset
from vlamem.sim.bench.deployment.options import DeploymentBench

SIZES = ("conditions", "trials", "orders", "long_trials", "ablation_trials", "states", "prepare_episodes", "kills")


def _notes(bench: DeploymentBench) -> str:
    """Where this run is smaller than the default, in words; empty where it is not."""
    default = preset(DeploymentBench, "bench_deployment")
    told = [
        f"{name.replace('_', ' ')} {_plain(getattr(bench, name))} (default {_plain(getattr(default, name))})"
        for name in SIZES
        if getattr(bench, name) != getattr(default, name)
    ]
    if not told:
        return ""
    return (
        "These figures are of a run of other sizes than the default, which takes about 8 core-hours: "
        + "; ".join(told)
        + "."
    )


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    bench = load_config(DeploymentBench, "bench deployment", arguments, __doc__ or "").sized()
    from vlamem.sim.bench.deployment.run import run

    command = shlex.join(["vlamem", "bench", "deployment", *arguments])
    page, twin = run(bench, command, _notes(bench), lambda line: print(line, flush=True))
    print(f"{page}\n{twin}")
    return 0
