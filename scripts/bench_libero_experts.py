"""Which LIBERO tasks the scripted experts solve, from the benchmark's stored initial states; writes
docs/results/libero_experts.md and libero_experts.json. Resumable; nothing is rendered.

Example: vlamem bench libero-experts --suites libero_object --episodes 10 --workers 2
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from vlamem.scripts.bars import play_with_bar
from vlamem.scripts.config import load_config


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench libero-experts`."""

    suites: tuple[str, ...]
    """LIBERO suites."""
    episodes: int
    """Initial states of each task, from the first on."""
    out: Path
    """Run folders of the suites; a stopped bench goes on."""
    results: Path
    """Folder of the page."""
    workers: int
    """Processes."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written, 1 when stopped."""
    args = load_config(Args, "bench libero-experts", arguments, __doc__ or "")
    from vlamem.sim.bench.libero_experts.run import run
    from vlamem.sim.rollout.config import RolloutConfig

    command = shlex.join(["vlamem", "bench", "libero-experts", *arguments])
    configs = []
    for suite in args.suites:
        words = ["--suite", suite, "--tasks", "all", "--policy", "expert", "--episodes", str(args.episodes)]
        words += [
            "--workers",
            str(args.workers),
            "--out",
            str(args.out / suite),
            "--watchdog-s",
            "900",
            "--retry-errors",
        ]
        configs.append(load_config(RolloutConfig, "rollout", words, ""))
    return play_with_bar(
        "bench libero-experts", lambda begin, progress: run(configs, command, args.results, begin, progress)
    )
