"""`vlamem pretrain`: trains TinyVLA on recorded frames and writes its weights."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from vlamem.core.factors import factors
from vlamem.scripts.config import load_config

_HELP = """Trains TinyVLA on frames of 'vlamem collect'; a stopped training goes on with --resume.

example: vlamem pretrain --frames data/frames --out runs/tiny/tiny.safetensors --minutes 45 --seed 0 --resume
"""


@dataclass(frozen=True)
class Args:
    """Options of `vlamem pretrain`."""

    frames: tuple[Path, ...]
    """Frames directories; several are read as one."""
    out: Path
    """Weights file to write; the state of a training in progress lies beside it."""
    minutes: float
    """Training time; the learning rate falls to zero over it."""
    steps: int
    """Train for so many steps instead; 0 goes by minutes."""
    seed: int
    """Seed of every random stream."""
    resume: bool
    """Go on from the last checkpoint where there is one."""
    start_from: Path | None
    """Weights to begin with instead of random ones."""
    threads: int
    """Threads of torch; one more thread loads batches."""
    batch: int
    """Frames of a batch."""
    learning_rate: float
    """Highest learning rate of AdamW."""
    draws: int
    """(time, noise) draws per frame; they share the cost of the camera trunks."""
    shift: int
    """Largest random shift of an image [pixels]."""
    balance: float
    """0 draws every task equally often, 1 as often as it was recorded."""
    weight: tuple[str, ...]
    """Factor on the share of single tasks, e.g. touch=2 push=1.5."""
    report_steps: int
    """Steps between held-out figures; 0 for none before the end."""
    checkpoint_minutes: float
    """Minutes between checkpoints."""


def main(arguments: list[str]) -> int:
    """Runs the verb; 0 when the weights are written."""
    args = load_config(Args, "pretrain", arguments, _HELP)
    weights = factors("--weight", args.weight)
    from vlamem.core.locks import one_writer
    from vlamem.policies.tiny.batches import BatchOptions
    from vlamem.policies.tiny.losses import LossOptions
    from vlamem.policies.tiny.train import PretrainOptions, pretrain

    options = PretrainOptions(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        learning_rate=args.learning_rate,
        checkpoint_minutes=args.checkpoint_minutes,
        report_steps=args.report_steps,
        threads=args.threads,
        batch=BatchOptions(size=args.batch, shift=args.shift, balance=args.balance, task_weights=weights),
        loss=LossOptions(draws=args.draws),
    )
    command = shlex.join(["vlamem", "pretrain", *arguments])
    with one_writer(args.out):
        metrics = pretrain(args.frames, args.out, options, args.resume, args.start_from, command)
    for name, value in metrics.items():
        print(f"{name:<32} {value:.4f}")
    print(f"weights: {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0
