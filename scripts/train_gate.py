"""`vlamem train-gate`: trains a memory, by default AURA-Mem, on recorded features of a frozen policy."""

import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vlamem.core.factors import factors
from vlamem.scripts.checks import within
from vlamem.scripts.config import load_config

if TYPE_CHECKING:
    from tqdm import tqdm

    from vlamem.memory.train.fit import Score
    from vlamem.memory.train.gate import GateOptions

_HELP = """Trains a memory on features recorded with 'vlamem collect --features': JAX only, but for --method rl.

A killed run is continued by the same command.

example: vlamem train-gate --features data/features --budget 0.05 --out runs/gate
         vlamem train-gate --features data/features --tasks recall_colour --targets context --out runs/gate-recall
         vlamem train-gate --features data/features --design 'gru?hidden=64' --out runs/gru
         vlamem train-gate --features data/more --start-from runs/gate/gate.safetensors --out runs/gate-more
         vlamem train-gate --features data/more --start-from runs/gate/gate.safetensors --updates 0 --out runs/budgets
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem train-gate`."""

    features: tuple[Path, ...]
    """Recordings; or LeRobotDatasets (folder or hub id), whose features --policy makes, for --targets chunk."""
    tasks: tuple[str, ...]
    """Tasks to train on; all that were recorded when none is given."""
    out: Path
    """Run folder: gate.safetensors, curves.json, curves.png, checkpoint."""
    policy: str
    """Policy that the features must be of; empty to take them as they are."""
    observation: Literal["", "libero"]
    """How the observations of LeRobotDatasets are read: libero for lerobot's LIBERO and a policy of this project."""
    targets: Literal["context", "chunk", "both"]
    """What the memory is to propose; of a gate to start from, what its head proposes of it."""
    design: str
    """Memory design, NAME[?option=value&option=value]; one of your own is package.module:Class in place of NAME."""
    method: Literal["bptt", "counterfactual", "rl"]
    """What trains the gate: straight through its threshold, the error each write saves, or success in simulation."""
    gate: Literal["learned", "always", "never", "random", "periodic"]
    """Of AURA-Mem: learned, or a control gate that is not trained."""
    budget: float | None
    """Writes per tick of recorded episodes at most, e.g. 0.02; what the write cost leaves when not given."""
    rate: float
    """Writes per tick of the random and periodic gates."""
    updates: int | None
    """Gradient updates at most, when not given 600, with --low-memory 200, with --method rl 10; 0 measures the budgets
    of --start-from anew and leaves its weights as they are."""
    learning_rate: float | None
    """At its peak; when not given 0.01, with --low-memory 0.02, with --method rl 0.003."""
    write_cost: float | None
    """Cost of writing at every tick, in units of the action error, by default 0.1; of success with --method rl, 1.0."""
    ticks: int | None
    """Ticks of a training row, which should take the longest episode; when not given 256, with --low-memory 64."""
    rows: int | None
    """Rows of a batch; when not given 16, with --low-memory 1."""
    weight: tuple[str, ...]
    """How often single tasks are drawn beside the others, e.g. count_press=6 touch=0.3."""
    hidden: int
    """Width of the head."""
    seed: int
    """First seed."""
    seeds: int
    """Runs; the best on held-out episodes is named at the end."""
    low_memory: bool
    """Tune the gate of --start-from alone, within 256 KiB of training state, as on a robot."""
    start_from: Path | None
    """Weights file to begin with, whose head is kept; --low-memory and --method rl tune its gate alone."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the weights are written."""
    args = load_config(Args, "train-gate", arguments, _HELP)
    within("--seeds", args.seeds, 1)
    if args.low_memory and args.start_from is None:
        raise ValueError("--low-memory tunes a gate that is trained already: name its file with --start-from")
    if args.method == "rl" and (args.start_from is None or not args.tasks):
        raise ValueError("--method rl tunes a gate that is trained already on success: name --start-from and --tasks")
    if args.low_memory and args.method != "bptt":
        raise ValueError(f"--low-memory tunes a gate by its action error: leave out --method {args.method}")
    if args.method == "counterfactual" and args.gate != "learned":
        raise ValueError(f"gate {args.gate!r} is not trained: leave out --method counterfactual")
    if (args.low_memory or args.method == "rl") and (args.seeds > 1 or args.budget is not None):
        raise ValueError("a gate is tuned once and its threshold is learned: leave out --seeds and --budget")
    if (args.low_memory or args.method == "rl") and args.gate != "learned":
        raise ValueError(f"--gate {args.gate}: the gate of --start-from is tuned as it is, leave it out")
    if args.updates == 0 and args.start_from is None:
        raise ValueError("--updates 0 measures the budgets of a gate that is trained: name its file with --start-from")
    if args.updates == 0 and (args.low_memory or args.method != "bptt" or args.seeds > 1 or args.budget is not None):
        raise ValueError("--updates 0 trains nothing: leave out --low-memory, --method, --seeds and --budget")
    if args.start_from is not None and args.design != "aura":
        raise ValueError(f"--design {args.design}: the design of --start-from is kept, leave it out")
    from vlamem.memory.train.gate import folders_of

    written = [
        (folder / "gate.safetensors").resolve() for folder in folders_of(args.seed, args.seeds, args.out).values()
    ]
    if args.start_from is not None and args.start_from.resolve() in written:
        raise ValueError(f"--out {args.out} would write over --start-from {args.start_from}: choose another folder")

    from vlamem.core.locks import one_writer

    with one_writer(args.out):
        return _train(args, shlex.join(["vlamem", "train-gate", *arguments]))


def _train(args: Args, command: str) -> int:
    from tqdm import tqdm

    from vlamem.memory.train.gate import best_of, held_out_score_of, train_seeds

    if args.updates == 0:
        return _recalibrate(args, command)
    if args.method == "rl":
        return _reinforce(args, command)
    options = _options(args, command)
    if args.low_memory:
        return _tune(args, options)
    if args.start_from is not None:
        before = held_out_score_of(args.start_from, options)
        print(f"{args.start_from}: {_described(before)}")
        _print_tasks(before)
    with tqdm(total=options.updates * args.seeds, unit="update", desc="gate", delay=0.5) as bar:
        done = 0

        def progress(update: int, last: dict[str, float]) -> None:
            nonlocal done
            bar.update(update - done if update > done else update)  # a run that goes on, or another seed's
            done = update
            bar.set_postfix({k: f"{v:.3g}" for k, v in last.items() if k != "update"}, refresh=False)

        runs = train_seeds(options, args.seeds, args.out, progress)
    for path, trained in runs:
        print(
            f"{path}: {_described(trained.score, args.budget)}, {trained.updates} updates in "
            f"{trained.seconds / 60:.1f} min, {trained.training_bytes / 1024:.0f} KiB of training state"
        )
        _print_tasks(trained.score)
        if args.budget is not None and trained.score.rate > args.budget:
            print(
                f"{path}: above its budget on held-out episodes ({100 * trained.score.rate:.2f} %, not "
                f"{100 * args.budget:g} %), for it is held over all that are recorded: give a lower --budget"
            )
    if len(runs) > 1:
        print(f"best: {best_of(runs)[0]}")
    return 0


class _Own(NamedTuple):
    """Options of which every method has a value of its own."""

    updates: int
    learning_rate: float
    write_cost: float
    ticks: int
    rows: int


def _own(args: Args) -> _Own:
    """The options as they were given, else the method's own."""
    from vlamem.memory.train.gate import GateOptions
    from vlamem.memory.train.on_device import TuneOptions
    from vlamem.memory.train.policy_gradient import RlOptions

    method = TuneOptions() if args.low_memory else GateOptions(())
    usual = {name: getattr(method, name) for name in _Own._fields}
    if args.method == "rl":
        rl = RlOptions()
        usual |= {"updates": rl.updates, "learning_rate": rl.learning_rate, "write_cost": rl.write_price}
    given = {name: value for name in usual if (value := getattr(args, name)) is not None}
    return _Own(**(usual | given))


def _options(args: Args, command: str) -> "GateOptions":
    """What is trained."""
    from vlamem.memory.train.gate import METHODS, GateOptions

    used_with = None
    if args.policy:
        from vlamem.memory.weights import identity
        from vlamem.policies.registry import find_policy, load_policy, weights_hash

        source = find_policy(args.policy)
        policy = load_policy(source)
        used_with = identity(policy.spec, weights_hash(policy, source))
    from vlamem.policies.lerobot.dataset_learning import features_of

    view = None
    if args.observation:
        from vlamem.sim.suites.libero.from_lerobot import LiberoView

        view = LiberoView
    own = _own(args)
    return GateOptions(
        features=features_of(
            args.features, args.policy, args.out, command, lambda done, planned: None, args.targets, view
        ),
        tasks=args.tasks,
        targets=args.targets,
        design=args.design,
        gate=METHODS.get(args.method, "learned") if args.gate == "learned" else args.gate,
        budget=args.budget,
        rate=args.rate,
        updates=max(1, own.updates),  # none where budgets alone are measured
        learning_rate=own.learning_rate,
        write_cost=own.write_cost,
        ticks=own.ticks,
        rows=own.rows,
        weights=tuple(factors("--weight", args.weight).items()),
        hidden=args.hidden,
        seed=args.seed,
        used_with=used_with,
        command=command,
        start_from=args.start_from,
    )


def _right(share: float) -> str:
    return "no query" if math.isnan(share) else f"{100 * share:5.1f} % right"


def _described(score: "Score", budget: float | None = None) -> str:
    if math.isnan(score.error):
        return "nothing held out: every tenth episode of a task is, record ten or more to know how good it is"
    most = "" if budget is None else f" (budget {100 * budget:g} %)"
    return f"held out {_right(score.right)}, error {score.error:.3f}, writes on {100 * score.rate:.2f} % of ticks{most}"


def _print_tasks(score: "Score") -> None:
    for task, (right, rate) in score.by_task.items():
        print(f"  {task:<16} {_right(right)}, writes on {100 * rate:.2f} % of ticks")


def _one(bar: "tqdm[Any]") -> None:
    bar.update(1)


def _recalibrate(args: Args, command: str) -> int:
    from vlamem.memory.train.gate import recalibrate
    from vlamem.memory.weights import load_weights

    assert args.start_from is not None
    path, shifts = recalibrate(args.start_from, _options(args, command), args.out)
    known = load_weights(args.start_from)[0].metrics
    print(f"{path}: the weights of {args.start_from}, as they are")
    for name, shift in shifts.items():
        print(f"  {name:<22} {shift:+.3f}, was {f'{known[name]:+.3f}' if name in known else 'not known'}")
    return 0


def _tune(args: Args, options: "GateOptions") -> int:
    from tqdm import tqdm

    from vlamem.memory.train.gate import held_out_score_of, tune_on_robot

    assert args.start_from is not None
    before = held_out_score_of(args.start_from, options)
    with tqdm(total=options.updates, unit="update", desc="gate", delay=0.5) as bar:
        path, tuned = tune_on_robot(options, args.start_from, args.out, lambda done: _one(bar))
    last = slice(-max(1, options.updates // 5), None)
    print(
        f"{path}: {tuned.state_bytes / 1024:.0f} KiB of training state, {tuned.working_bytes / 1024:.0f} KiB while an "
        f"update runs; error {tuned.errors[last].mean():.3f}, writes on {100 * tuned.rates[last].mean():.2f} % of ticks"
    )
    _compare(before, held_out_score_of(path, options, keep=True))
    return 0


def _compare(before: "Score", after: "Score") -> None:
    for name, score in (("before", before), ("after", after)):
        print(f"{name}: {_described(score)}")
        _print_tasks(score)


def _reinforce(args: Args, command: str) -> int:
    from tqdm import tqdm

    from vlamem.memory.train.features import parts_of
    from vlamem.memory.train.gate import held_out_score_of
    from vlamem.memory.train.policy_gradient import RlOptions, Step
    from vlamem.policies.lerobot.dataset_files import is_dataset
    from vlamem.sim.record.gate_rl import tune_in_suite

    assert args.start_from is not None
    own = _own(args)
    how = RlOptions(updates=own.updates, learning_rate=own.learning_rate, write_price=own.write_cost, seed=args.seed)
    recorded = None  # held-out episodes of everything that was recorded: a gate may get worse at other tasks
    if all(parts_of(folder) or is_dataset(folder) for folder in args.features):
        recorded = replace(_options(args, command), tasks=())
        before = held_out_score_of(args.start_from, recorded)
    else:
        print(f"not compared on held-out episodes: no recordings at {' '.join(map(str, args.features))}")
    with tqdm(total=own.updates, unit="update", desc="gate", delay=0.5) as bar:

        def progress(step: Step) -> None:
            bar.update(1)
            bar.set_postfix(success=f"{step.success:.2f}", rate=f"{step.rate:.3f}")

        path, steps = tune_in_suite(
            args.policy or "tiny", args.start_from, args.tasks, how, args.out, command, progress=progress
        )
    first, last = steps[0], steps[-1]
    print(
        f"{path}: with drawn decisions success {first.success:.2f} to {last.success:.2f}, writes on "
        f"{100 * first.rate:.2f} to {100 * last.rate:.2f} % of ticks"
    )
    if recorded is not None:
        _compare(before, held_out_score_of(path, recorded, keep=True))
    return 0
