"""`vlamem fit`: a checkpoint and demonstrations in, a memory for that policy out."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from vlamem.scripts.checks import within
from vlamem.scripts.config import load_config

_HELP = """Trains a memory for a frozen policy from demonstrations alone, through the policy's own imitation loss.

No column tells an answer: the memory learns to propose what lowers the frozen policy's loss of the demonstrated actions
where samples of the policy disagree, and when to write for that. Beside the gate's file a card says what it was trained
on and what held-out demonstrations say of it. A killed run is continued by the same command.

example: vlamem collect --features --conditioning --tasks memory --episodes 200 --out data/demonstrations
         vlamem fit tiny data/demonstrations --out runs/fit/gate.safetensors
         vlamem rollout --tasks memory --memory aura:runs/fit/gate.safetensors --out runs/fitted
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem fit`."""

    policy: tyro.conf.Positional[str]
    """Frozen policy, as in 'vlamem rollout --policy'; it must give its loss, as tiny does."""
    data: tyro.conf.Positional[tuple[Path, ...]]
    """LeRobotDatasets (folder or hub id), or recordings of 'vlamem collect --features --conditioning'."""
    out: Path
    """The gate's weights file; its card lies beside it, and checkpoints and features in a folder of its name."""
    tasks: tuple[str, ...]
    """Tasks to train on; all that were recorded when none is given."""
    most: int | None
    """Demonstrations a task at most, the first so many; 20 or more are needed."""
    design: str
    """Memory and its options as NAME?option=value: aura, aura?gate=always, gru and the others of docs/aura.md."""
    updates: int
    """Gradient updates at most; demonstrations that are not trained on may end the training sooner."""
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
    args = load_config(Args, "fit", arguments, _HELP)
    if not args.policy or not args.data:
        raise ValueError("name a frozen policy and its demonstrations: vlamem fit tiny data/demonstrations")
    for name, least in (("updates", 1), ("rows", 2), ("hidden", 2), ("seed", 0)):
        within(f"--{name}", getattr(args, name), least)
    for name in ("learning_rate", "write_cost"):
        within(f"--{name.replace('_', '-')}", getattr(args, name), 0)
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out {args.out}: expected the name of a weights file, e.g. {args.out}/gate.safetensors")
    from vlamem.core.locks import one_writer

    with one_writer(args.out):
        return _fit(args, shlex.join(["vlamem", "fit", *arguments]))


def _fit(args: Args, command: str) -> int:
    from tqdm import tqdm

    from vlamem.memory.config import HeadConfig
    from vlamem.memory.designs.registry import make_design
    from vlamem.memory.train.card import table, verdict, write_card
    from vlamem.memory.train.demonstrations import DemonstrationData
    from vlamem.memory.train.taught import TaughtOptions, teach_gate
    from vlamem.memory.train.teach import TeachOptions
    from vlamem.memory.weights import identity
    from vlamem.policies.lerobot.dataset_learning import demonstrations_of
    from vlamem.policies.registry import find_policy, load_policy
    from vlamem.policies.teaching import PolicyLoss

    work = args.out.with_suffix("")
    source = find_policy(args.policy)
    loss = PolicyLoss(load_policy(source))
    spec = loss.policy.spec
    # a design that does not take what this policy gives is refused before hours of recording
    make_design(args.design, spec.feature_size + spec.context_size, HeadConfig(context=spec.context_size))
    with tqdm(unit="episode", desc="record", delay=0.5) as bar:

        def recorded(done: int, planned: int) -> None:
            bar.total = planned
            bar.update(done - bar.n)

        folders = demonstrations_of(args.data, loss.policy, source.sha256, work, command, recorded)
    data = DemonstrationData(folders, args.tasks, identity(loss.policy.spec, source.sha256), args.most)
    usual = TeachOptions()
    train = replace(usual.train, updates=args.updates, learning_rate=args.learning_rate, write_cost=args.write_cost)
    how = replace(usual, train=train, rows=args.rows, seed=args.seed)
    with tqdm(total=args.updates, unit="update", desc="fit", delay=0.5) as bar:

        def progress(update: int, last: dict[str, float]) -> None:
            bar.update(update - bar.n)
            bar.set_postfix({k: f"{v:.3g}" for k, v in last.items() if k in ("loss", "rate")}, refresh=False)

        options = TaughtOptions(how, args.design, args.hidden, command)
        made = teach_gate(data, loss, loss.injection, options, args.out, work, progress)
    print("\n".join(table(made)))
    print(f"{args.out}: {made.taught.updates} updates in {made.taught.seconds / 60:.1f} min; {verdict(made)}")
    print(f"card: {write_card(made, data, args.seed)}")
    return 0
