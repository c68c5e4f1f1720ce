"""Hundreds of consecutive trials under a local shift, with and without a success memory; writes deployment.md.

Example: vlamem bench deployment --preset smoke --results runs/deployment-smoke

A stopped bench goes on with the same command. The default is about 8 core-hours.
"""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vlamem.scripts.config import load_config, preset


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench deployment`."""

    preset: Literal["full", "smoke"]
    """smoke: a minute, one condition, a handful of trials, for checks alone; it replaces all sizes below."""
    policy: str
    """tiny (shipped) or a .safetensors file."""
    conditions: tuple[str, ...]
    """Jobs as TASK:SHIFT=STRENGTH; shifts are camera, actuator, table, friction, lighting."""
    trials: int
    """Consecutive trials of the main arms."""
    orders: int
    """Orders of initial states."""
    long_trials: int
    """Trials of the main arms on the ablation condition in the first order."""
    ablation_trials: int
    """Trials of each ablation; 0 leaves them out."""
    ablation: str
    """Condition of the ablations."""
    capacities: tuple[int, ...]
    """Capacities of the memory that are compared with an unlimited one [segments]."""
    states: int
    """Initial states of a job; trials go through them again and again."""
    prepare_episodes: int
    """Episodes of the policy alone, from the training split, for threshold and critic of each task."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    seed: int
    """Seed of the policy's noise."""
    workers: int
    """Processes."""
    search_segments: int
    """Segments that are searched."""
    commits: int
    """Episodes that are stored for timing."""
    kills: int
    """How often a writing process is killed."""
    timing_trials: int
    """Trials in which every decision is timed both ways."""
    out: Path
    """Run folder; a stopped bench goes on."""
    results: Path
    """Folder of the page."""


SMOKE: dict[str, Any] = {
    "trials": 6,
    "orders": 1,
    "long_trials": 0,
    "ablation_trials": 0,
    "states": 2,
    "prepare_episodes": 8,
    "search_segments": 20_000,
    "commits": 5,
    "kills": 2,
    "timing_trials": 1,
}
SMOKE_CONDITION = "touch:actuator=0.25"


SIZES = ("conditions", "trials", "orders", "long_trials", "ablation_trials", "states", "prepare_episodes", "kills")


def _notes(values: dict[str, Any]) -> str:
    """Where this run is smaller than the default, in words; empty where it is not."""
    default = preset(Args, "bench_deployment")
    told = [
        f"{name.replace('_', ' ')} {_plain(values[name])} (default {_plain(getattr(default, name))})"
        for name in SIZES
        if values[name] != getattr(default, name)
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
    from vlamem.sim.bench.deployment import DeploymentBench, run

    args = load_config(Args, "bench_deployment", arguments, __doc__ or "")
    values = {f.name: getattr(args, f.name) for f in fields(args) if f.name != "preset"}
    if args.preset == "smoke":
        values |= SMOKE | {"conditions": (SMOKE_CONDITION,), "ablation": SMOKE_CONDITION, "out": args.out / "smoke"}
        if args.results == Path("docs/results"):  # a smoke test is no result
            values["results"] = args.out / "smoke"
    values["notes"] = _notes(values)
    command = shlex.join(["vlamem", "bench", "deployment", *arguments])
    page, twin = run(DeploymentBench(**values, command=command), lambda line: print(line, flush=True))
    print(f"{page}\n{twin}")
    return 0
