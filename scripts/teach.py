"""`vlamem teach`: teaches a memory through a frozen policy's own loss, from demonstrations without an answer."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlamem.scripts.checks import within
from vlamem.scripts.config import load_config

if TYPE_CHECKING:
    from vlamem.memory.train.swap import TaskReport

_HELP = """Records demonstrations of the tabletop suite where --episodes asks for more, and teaches a memory from them.

No column tells the answer: what is learned is where the frozen policy's own loss falls. A killed run is continued by
the same command.

example: vlamem teach --tasks recall_colour shell_game --episodes 200 --demonstrations data/taught --out runs/taught
         vlamem rollout --tasks recall_colour --memory aura:runs/taught/gate.safetensors --out runs/recall
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem teach`."""

    tasks: tuple[str, ...]
    """Task names; all that were recorded when none is given and --episodes is 0."""
    episodes: int
    """Demonstrations a task to record first, those that are there included; 0 for none."""
    demonstrations: Path
    """Where they are."""
    out: Path
    """Run folder: gate.safetensors, checkpoint."""
    policy: str
    """Frozen policy that gives the gradient of its loss, e.g. tiny."""
    design: str
    """Memory and its options as NAME?option=value: aura, aura?gate=always, gru and the others of docs/aura.md."""
    updates: int
    """Gradient updates at most; held-out episodes may end the training sooner."""
    learning_rate: float
    """At its peak."""
    write_cost: float
    """Cost of writing at every tick, in units of what the memory has gained."""
    rows: int
    """Episodes of a batch."""
    hidden: int
    """Width of the head."""
    seed: int
    """Of parameters and batches."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the weights are written."""
    args = load_config(Args, "teach", arguments, _HELP)
    for name, least in (("episodes", 0), ("updates", 1), ("rows", 2), ("hidden", 2), ("seed", 0)):
        within(f"--{name}", getattr(args, name), least)
    if args.episodes and not args.tasks:
        raise ValueError(f"--episodes {args.episodes} of which tasks? name them with --tasks")
    from tqdm import tqdm

    from vlamem.memory.train.demonstrations import DemonstrationData
    from vlamem.memory.train.loop import TrainConfig
    from vlamem.memory.train.taught import TaughtOptions, teach_gate
    from vlamem.memory.train.teach import TeachOptions
    from vlamem.memory.weights import identity
    from vlamem.policies.registry import find_policy, load_policy
    from vlamem.policies.teaching import PolicyLoss

    command = shlex.join(["vlamem", "teach", *arguments])
    if args.episodes:
        _record(args, command)
    source = find_policy(args.policy)
    loss = PolicyLoss(load_policy(source))
    data = DemonstrationData([args.demonstrations], args.tasks, identity(loss.policy.spec, source.sha256))
    train = TrainConfig(
        updates=args.updates,
        learning_rate=args.learning_rate,
        weight_decay=0.02,
        write_cost=args.write_cost,
        ramp=(0.3, 0.6),
    )
    options = TaughtOptions(
        TeachOptions(train, rows=args.rows, seed=args.seed), args.design, args.hidden, command=command
    )
    with tqdm(total=args.updates, unit="update", desc="teach", delay=0.5) as bar:

        def progress(update: int, last: dict[str, float]) -> None:
            bar.update(update - bar.n)
            bar.set_postfix({k: f"{v:.3g}" for k, v in last.items() if k in ("loss", "rate")}, refresh=False)

        path, taught, reports = teach_gate(data, loss, loss.injection, options, args.out, progress)
    print(f"{path}: {taught.updates} updates in {taught.seconds / 60:.1f} min")
    print(f"{'held out':<16} {'bare':>7} {'memory':>7} {'swapped':>8} {'spoken':>7} {'writes':>7}")
    for task, said in reports.items():
        print(_line(task, said))
    return 0


def _line(task: str, said: "TaskReport") -> str:
    verdict = "remembers" if said.kept_low > 0 else "nothing was shown to be remembered"
    figures = f"{said.bare:7.4f} {said.own:7.4f} {said.swapped:8.4f} {100 * said.confident:5.0f} % {said.writes:7.2f}"
    return f"{task:<16} {figures}  {verdict}"


def _record(args: Args, command: str) -> None:
    from tqdm import tqdm

    from vlamem.sim.record.demonstrations import DemonstrationCollection, collect_demonstrations

    episodes = dict.fromkeys(args.tasks, args.episodes)
    with tqdm(total=sum(episodes.values()), unit="episode", desc="record", delay=0.5) as bar:
        what = DemonstrationCollection(args.policy, episodes, args.demonstrations, command=command)

        def progress(succeeded: bool) -> None:
            bar.update(1)

        collect_demonstrations(what, progress)
