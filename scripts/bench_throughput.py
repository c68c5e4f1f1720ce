"""Episodes an hour of vlamem rollout and lerobot-eval side by side, and where the time goes; writes throughput.md.

Needs the plugins: pip install ./plugins/lerobot_policy_vlamem ./plugins/lerobot_env_vlamem

Example: vlamem bench throughput --preset smoke --results runs/throughput-smoke
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.config import load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench throughput`."""

    preset: Literal["full", "smoke"]
    """smoke: one task, two episodes, for checks alone; it replaces tasks, episodes and batches."""
    policy: str
    """tiny (shipped), a .safetensors file, or a checkpoint of lerobot with ?actions=osc_pose&hz=20."""
    tasks: tuple[str, ...]
    """Tasks of the tabletop suite."""
    episodes: int
    """Episodes of each task."""
    batches: tuple[int, ...]
    """Environments side by side in lerobot-eval; the fastest setting is compared with."""
    workers: int
    """Processes of vlamem rollout."""
    execute: int
    """Actions of each chunk carried out before the next plan."""
    profile_episodes: int
    """Episodes of each task for where the time goes."""
    size: int
    """Height and width of camera images in pixels; must be the policy's."""
    out: Path
    """Run folders; emptied at the beginning."""
    results: Path
    """Folder of the page."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    args = load_config(Args, "bench_throughput", arguments, __doc__ or "")
    from vlamem.sim.bench.throughput import ThroughputBench, run

    options = {name: value for name, value in vars(args).items() if name != "preset"}
    if args.preset == "smoke":
        options |= {"tasks": args.tasks[:1], "episodes": 2, "batches": (1,), "profile_episodes": 1}
    command = shlex.join(["vlamem", "bench", "throughput", *arguments])
    page, twin = run(ThroughputBench(**options, command=command), lambda text: print(text, flush=True))
    print(f"{page}\n{twin}")
    return 0
