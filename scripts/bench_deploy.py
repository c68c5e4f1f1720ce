"""A server and a robot as two processes: timing, faults, killed controllers, abuse; writes docs/results/deploy.md.

Presets: ci two minutes, quick five, full ten minutes quiet and ten under faults, on a machine that does nothing else.

Example: vlamem bench deploy --preset ci
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.checks import within
from vlamem.scripts.config import load_config
from vlamem.scripts.signals import on_termination

_PRESETS = {
    "ci": (15.0, 20.0, 2, 2, 300, 6, 5, 1),
    "quick": (120.0, 120.0, 6, 6, 2_000, 50, 10, 5),
    "full": (600.0, 600.0, 20, 20, 10_000, 50, 20, 10),
}
"""quiet_s, faults_s, kills, stalls, malformed, clients, client_steps, controller_kills."""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem bench deploy`."""

    preset: Literal["ci", "quick", "full"]
    """How long."""
    policy: str
    """To serve."""
    memory: tuple[str, ...]
    """As in vlamem serve, or untrained: a gate with drawn weights that writes and never proposes."""
    robot_file: str
    """Limits and rates of the simulated arm."""
    suite: str
    """Suite of MuJoCo tasks, module:ATTRIBUTE."""
    size: int
    """Pixels of an image."""
    tasks: tuple[str, ...]
    """One an episode, in turn."""
    memory_tasks: tuple[str, ...]
    """Likewise, of the episodes in which controllers are killed: tasks in which the gate writes."""
    controller_kills: int | None
    """Kills of the controller in the middle of an episode; the preset's when not given: ci 1, quick 5, full 10."""
    episode_s: float
    """Longest episode."""
    execute: int
    """Steps of a chunk before the next is asked for."""
    blend: int
    """Steps over which chunks are blended."""
    bad: float
    """Chance of a message to be duplicated, and to be reordered, under faults; a tenth of it to be truncated."""
    seed: int
    """Of every draw."""
    folder: Path
    """For state, logs and reports."""
    page: str
    """Name of the page, for a policy beside the shipped one."""
    results: Path
    """Folder of the page; 'ci' writes it into --folder instead."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the page is written."""
    args = load_config(Args, "bench deploy", arguments, __doc__ or "")
    from vlamem.deploy.bench.options import DeployBench
    from vlamem.deploy.bench.page import figures, markdown
    from vlamem.deploy.bench.run import run
    from vlamem.sim.results.pages import Figure, write_result_page
    from vlamem.sim.suites.protocol import SuiteError
    from vlamem.sim.suites.registry import load_suite

    quiet_s, faults_s, kills, stalls, malformed, clients, steps, controllers = _PRESETS[args.preset]
    controllers = controllers if args.controller_kills is None else args.controller_kills
    within("--controller-kills", controllers, 1)
    known = load_suite(args.suite).tasks
    for task in (*args.tasks, *args.memory_tasks):  # now, not when their turn comes after twenty minutes
        if task not in known:
            raise SuiteError(f"suite {args.suite} has no task '{task}': choose from {', '.join(known)}")
    bench = DeployBench(
        args.policy, args.memory, args.robot_file, args.suite, args.size, args.tasks, quiet_s, faults_s, args.episode_s,
        kills, stalls, args.bad, malformed, clients, steps, controllers, args.memory_tasks, args.execute, args.blend,
        args.seed, args.folder,
    )  # fmt: skip
    with on_termination(_end):
        result = run(bench, lambda line: print(line, flush=True))
    command = shlex.join(["vlamem", "bench", "deploy", *arguments])
    found = {name: Figure(float(value), n) for name, (value, n) in figures(result).items()}
    results = args.folder if args.preset == "ci" else args.results
    page, twin = write_result_page(args.page, command, found, markdown(bench, result), results, {"seed": args.seed})
    print(f"{page}\n{twin}")
    return 0


def _end(number: int) -> None:
    """By an exception, so that no server and no robot stays behind."""
    raise SystemExit(128 + number)
