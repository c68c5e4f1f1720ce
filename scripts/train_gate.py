"""`vlamem train-gate`: trains what AURA-Mem writes and says, from recorded features of a frozen policy."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlamem.scripts.config import load_config

_HELP = """Trains a gate on features recorded with 'vlamem collect --features'. JAX only: nothing is rolled out.

A killed run is continued by the same command.

example: vlamem train-gate --features data/features --budget 0.05 --out runs/gate
         vlamem train-gate --features data/features --tasks recall_colour --targets context --out runs/gate-recall
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem train-gate`."""

    features: tuple[Path, ...]
    """Recordings."""
    tasks: tuple[str, ...]
    """Tasks to train on; all that were recorded when none is given."""
    out: Path
    """Run folder: gate.safetensors, curves.json, curves.png, checkpoint."""
    policy: str
    """Policy that the features must be of; empty to take them as they are."""
    targets: Literal["context", "chunk", "both"]
    """What the memory is to propose."""
    method: Literal["bptt", "counterfactual"]
    """What trains the gate: straight through its threshold, or the error that each write saves."""
    gate: Literal["learned", "always", "never", "random", "periodic"]
    """learned, or a control gate that is not trained."""
    budget: float | None
    """Writes per tick at most, e.g. 0.02; what the write cost leaves when not given."""
    rate: float
    """Writes per tick of the random and periodic gates."""
    updates: int
    """Gradient updates at most."""
    learning_rate: float
    """At its peak."""
    write_cost: float
    """Cost of writing at every tick, in units of the action error."""
    ticks: int
    """Ticks of a training row."""
    rows: int
    """Rows of a batch."""
    hidden: int
    """Width of the head."""
    seed: int
    """First seed."""
    seeds: int
    """Runs; the best on held-out episodes is named at the end."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the weights are written."""
    args = load_config(Args, "train_gate", arguments, _HELP)
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}: expected 1 or more")
    from tqdm import tqdm

    from vlamem.policies.speak_gate import METHODS, GateOptions, best_of, train_seeds

    used_with = None
    if args.policy:
        from vlamem.policies.registry import find_policy, load_policy
        from vlamem.policies.voices import identity

        source = find_policy(args.policy)
        used_with = identity(load_policy(source), source.sha256)
    options = GateOptions(
        features=args.features,
        tasks=args.tasks,
        targets=args.targets,
        gate=METHODS[args.method] if args.gate == "learned" else args.gate,
        budget=args.budget,
        rate=args.rate,
        updates=args.updates,
        learning_rate=args.learning_rate,
        write_cost=args.write_cost,
        ticks=args.ticks,
        rows=args.rows,
        hidden=args.hidden,
        seed=args.seed,
        used_with=used_with,
        command=shlex.join(["vlamem", "train-gate", *arguments]),
    )
    with tqdm(total=args.updates * args.seeds, unit="update", desc="gate") as bar:

        def progress(update: int, last: dict[str, float]) -> None:
            bar.update(1)
            bar.set_postfix({k: f"{v:.3g}" for k, v in last.items() if k != "update"}, refresh=False)

        runs = train_seeds(options, args.seeds, args.out, progress)
    for path, trained in runs:
        score = trained.score
        print(
            f"{path}: held out {100 * score.right:.1f} % right, error {score.error:.3f}, writes on "
            f"{100 * score.rate:.2f} % of ticks, {trained.updates} updates in {trained.seconds / 60:.1f} min, "
            f"{trained.training_bytes / 1024:.0f} KiB of training state"
        )
        for task, (right, rate) in score.by_task.items():
            print(f"  {task:<16} {100 * right:5.1f} % right, writes on {100 * rate:.2f} % of ticks")
    if len(runs) > 1:
        print(f"best: {best_of(runs)[0]}")
    return 0
