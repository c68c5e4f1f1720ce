"""From recorded features to a memory's weights file: what `vlamem train-gate` does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlamem.memory.config import HeadConfig
from vlamem.memory.designs import make_design
from vlamem.memory.protocol import Memory, Params, named_arrays
from vlamem.memory.train.batches import TargetOptions, TrainingSet
from vlamem.memory.train.budget import with_budget
from vlamem.memory.train.curves import write_curves
from vlamem.memory.train.features import open_features
from vlamem.memory.train.fit import (
    Progress,
    Score,
    Trained,
    TrainingOptions,
    held_out_score,
    in_policy_units,
    train_memory,
)
from vlamem.memory.train.loop import TrainConfig
from vlamem.memory.train.on_device import Tuned, TuneOptions, tune_gate
from vlamem.memory.weights import Header, TrainedFor, load_memory, load_weights, save_weights

METHODS = {"bptt": "learned", "counterfactual": "counterfactual"}
"""Gate by method: straight-through back-propagation, or the counterfactual action error."""
WEIGHTS = "gate.safetensors"
"""What a run folder's weights are called, whatever the design."""


@dataclass(frozen=True)
class GateOptions:
    """What `train_gate` is to do.

    Attributes:
        features: recordings.
        tasks: of the recording, all when empty.
        targets: "context", "chunk" or "both".
        design: of the memory, as "NAME?option=value"; see vlamem.memory.designs.
        gate: of AURA-Mem, one of its GATE_KINDS; "learned" is trained by back-propagation.
        budget: writes per tick at most, or None.
        rate: of AURA-Mem's random and periodic gates.
        updates, learning_rate, write_cost: of the training.
        ticks, rows: of a batch; a row should take the longest episode, or what it asks at its end is seldom trained on.
        weights: of single tasks; see batches.TargetOptions.
        hidden: width of the head's hidden layer.
        seed: of parameters and batches.
        answers: see batches.TargetOptions.
        used_with: the policy that the features must be of, or None.
        command: written into the file.
        start_from: weights to begin with, whose gate is learned, or None for fresh ones.
    """

    features: tuple[Path, ...]
    tasks: tuple[str, ...] = ()
    targets: str = "both"
    design: str = "aura"
    gate: str = "learned"
    budget: float | None = None
    rate: float = 0.05
    updates: int = 600
    learning_rate: float = 1e-2
    write_cost: float = 0.1
    ticks: int = 256
    rows: int = 16
    weights: tuple[tuple[str, float], ...] = ()
    hidden: int = 128
    seed: int = 0
    answers: bool = True
    used_with: TrainedFor | None = None
    command: str = "vlamem train-gate"
    start_from: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("updates", 1), ("ticks", 2), ("rows", 1), ("hidden", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: expected {least} or more")
        if not self.learning_rate > 0 or not self.write_cost >= 0:
            raise ValueError(
                f"learning_rate {self.learning_rate} and write_cost {self.write_cost}: expected more than 0, and 0 or "
                "more"
            )
        for name in ("budget", "rate"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} is {share}: expected a share of ticks, more than 0 and at most 1")
        if self.budget is not None and self.gate not in METHODS.values():
            raise ValueError(f"gate {self.gate!r} learns no threshold that a budget could move: leave out --budget")

    @property
    def signal(self) -> str:
        """What teaches the gate, see vlamem.memory.protocol.Memory.gate_signal."""
        return "counterfactual" if self.gate == "counterfactual" else "straight-through"

    def training(self) -> TrainingOptions:
        """The training that these options mean."""
        train = TrainConfig(
            updates=self.updates,
            weight_decay=0.02,
            learning_rate=self.learning_rate,
            write_cost=self.write_cost if self.gate in METHODS.values() else 0.0,
            # a memory that is trained already need not be spared the cost of writing at first
            ramp=(0.5, 0.8) if self.start_from is None else (0.0, 0.0),
            signal=self.signal,
        )
        return TrainingOptions(train, self.ticks, self.rows, self.seed, calibration=max(150, self.updates // 4))


def data_for(options: GateOptions, head: HeadConfig | None = None) -> TrainingSet:
    """The recordings as training data: targets for a fresh memory, or those of them that a trained `head` proposes.

    Raises FeaturesError for missing, broken or foreign recordings.
    """
    if options.targets not in ("context", "chunk", "both"):
        raise ValueError(f"targets {options.targets!r}: choose context, chunk or both")
    context, chunk, answers = options.targets != "chunk", options.targets != "context", options.answers
    if head is not None:  # which has lost its answers when it was saved
        context, chunk, answers = context and head.context > 0, chunk and head.chunk is not None, False
    targets = TargetOptions(context=context, chunk=chunk, answers=answers, weights=options.weights)
    return TrainingSet(open_features(options.features, options.used_with), targets, options.tasks)


def opened(path: Path, options: GateOptions) -> tuple[Header, Memory, Params, TrainingSet]:
    """A weights file, and the recordings as training data for what it proposes.

    Raises WeightsError for weights of another policy than the recordings'.
    """
    data = data_for(options, load_weights(path)[0].head)
    return *load_memory(path, data.meta.policy), data


def head_for(data: TrainingSet, hidden: int) -> HeadConfig:
    """The head that proposes the targets."""
    targets, meta = data.options, data.meta
    return HeadConfig(
        chunk=meta.chunk if targets.chunk else None,
        context=meta.context_size if targets.context else 0,
        answer=len(meta.goals) if targets.answers else 0,
        hidden=hidden,
    )


def memory_for(options: GateOptions, data: TrainingSet) -> Memory:
    """A fresh memory of the design that is asked for.

    Raises ValueError for an unknown design, for an option that it has not, and for a budget without a learned gate.
    """
    given: dict[str, Any] = {} if options.gate == "learned" else {"gate": options.gate, "rate": options.rate}
    memory = make_design(options.design, data.feature_size, head_for(data, options.hidden), given)
    if options.budget is not None and memory.gate_signal is None:
        raise ValueError(f"design {options.design!r} learns no gate that a budget could hold: leave out --budget")
    return memory


def without_answers(memory: Memory, params: Params) -> tuple[Memory, Params]:
    """Memory and parameters whose head no longer chooses among instructions, which only training needs."""
    kept = memory.with_head(replace(memory.head, answer=0))
    head, last = params.head, kept.head.outputs
    return kept, params._replace(head=head._replace(out=head.out[:, :last], out_bias=head.out_bias[:last]))


def train_gate(options: GateOptions, out: Path, progress: Progress = lambda i, last: None) -> tuple[Path, Trained]:
    """Trains a memory on recorded features; writes out/gate.safetensors and out/curves.json, and returns the first.

    A killed run goes on from its last checkpoint. Raises FeaturesError and ValueError as `data_for`, `memory_for`,
    `train_memory`, and WeightsError for weights to start from that are of another policy.
    """
    if options.start_from is None:
        data, start = data_for(options), None
        memory = memory_for(options, data)
    else:
        memory, start, data = _begun(options.start_from, options)
    trained = train_memory(memory, data, options.training(), out, progress, start)
    memory, params, metrics = trained.memory, trained.params, metrics_of(trained)
    if memory.gate_signal is not None:
        params, shifts = with_budget(memory, params, data, options.budget, options.seed)
        if params is not trained.params:  # the figures are of the gate that is saved
            held = held_out_score(memory, in_policy_units(memory, params, data, back=True), data, options.training())
            trained = replace(trained, params=params, score=held)
        metrics = metrics_of(trained) | shifts
    memory, params = without_answers(memory, params)
    path = out / WEIGHTS
    save_weights(path, Header.of(memory, data.meta.policy, options.command, metrics), named_arrays(params))
    write_curves(out, trained.history, ("error", "held_out_error"), ("right", "held_rate"), "action error")
    return path, trained


def _begun(path: Path, options: GateOptions) -> tuple[Memory, Params, TrainingSet]:
    """Memory and parameters, in training's units, that a training starts from, and its data.

    The bound of the state is dropped, for the training finds another.
    """
    _, memory, params, data = opened(path, options)
    head = head_for(data, memory.head.hidden)
    if options.gate not in METHODS.values():
        raise ValueError(f"{path} cannot start a gate {options.gate!r}: only learned gates are trained on")
    if memory.head != head:
        raise ValueError(f"{path} proposes {memory.head}, the training asks for {head}: see --targets")
    memory = memory.for_training(options.signal)
    return memory, in_policy_units(memory, params, data, back=True), data


def metrics_of(trained: Trained) -> dict[str, float]:
    """Figures for a weights file's header; those that could not be measured are left out."""
    cost = {
        "updates": float(trained.updates),
        "minutes": round(trained.seconds / 60, 5),
        "training_bytes": float(trained.training_bytes),
    }
    return cost | score_metrics(trained.score)


def score_metrics(score: Score) -> dict[str, float]:
    """Figures on held-out episodes, for a weights file's header."""
    found = {"held_out_error": score.error, "held_out_right": score.right, "writes_per_tick": score.rate}
    for task, (right, rate) in score.by_task.items():
        found |= {f"right.{task}": right, f"writes.{task}": rate}
    return {name: round(float(x), 5) for name, x in found.items() if np.isfinite(x)}


def tune_on_robot(
    options: GateOptions, start_from: Path, out: Path, progress: Callable[[int], None] = lambda done: None
) -> tuple[Path, Tuned]:
    """Tunes the gate of a weights file within 256 KiB of training state; writes out/gate.safetensors and the curves.

    Updates, learning rate, write cost, ticks, rows and seed are those of `options`. Raises WeightsError for a file of
    another policy than the features', and what `tune_gate` raises.
    """
    header, memory, params, data = opened(start_from, options)
    params = in_policy_units(memory, params, data, back=True)
    how = TuneOptions(
        options.updates, options.learning_rate, options.write_cost, options.ticks, options.rows, options.seed
    )
    tuned = tune_gate(memory, params, data, how, progress)
    path = out / WEIGHTS
    made = in_policy_units(memory, tuned.params, data)
    metrics = {"tuning_state_bytes": float(tuned.state_bytes)}  # those of the gate before are not of this one
    save_weights(path, Header.of(memory, header.trained_for, options.command, metrics), named_arrays(made))
    noted = enumerate(zip(tuned.errors.tolist(), tuned.rates.tolist(), strict=True), 1)
    history = [{"update": float(i), "error": error, "rate": rate} for i, (error, rate) in noted]
    write_curves(out, history, ("error",), ("rate",), "action error")
    return path, tuned


def recalibrate(start_from: Path, options: GateOptions, out: Path) -> tuple[Path, dict[str, float]]:
    """Measures how far the threshold of a weights file moves for each budget, and writes out/gate.safetensors.

    Nothing else of the file changes: its arrays are copied bit for bit, and so are its other figures. Raises ValueError
    for a gate without a threshold, WeightsError for one of another policy than the features'.
    """
    header, memory, params, data = opened(start_from, options)
    if memory.gate_signal is None:
        raise ValueError(f"{start_from} has learned no threshold that a budget could move")
    _, shifts = with_budget(memory, params, data, None, options.seed)
    path = out / WEIGHTS
    save_weights(path, replace(header, metrics={**header.metrics, **shifts}), load_weights(start_from)[1])
    return path, shifts


def held_out_score_of(path: Path, options: GateOptions, keep: bool = False) -> Score:
    """What held-out episodes of the recordings say of a gate's weights file.

    With `keep` the file is given these figures, and how far its threshold moves for other budgets: for a gate that was
    tuned, whose file says nothing of them yet. Raises WeightsError for a gate of another policy than the features'.
    """
    header, memory, own, data = opened(path, options)
    params = in_policy_units(memory, own, data, back=True)
    score = held_out_score(memory, params, data, options.training())
    if keep:
        shifts = with_budget(memory, params, data, None, options.seed)[1] if memory.gate_signal is not None else {}
        header = replace(header, metrics={**header.metrics, **score_metrics(score), **shifts})
        save_weights(path, header, named_arrays(own))
    return score


def train_seeds(
    options: GateOptions, seeds: int, out: Path, progress: Progress = lambda i, last: None
) -> list[tuple[Path, Trained]]:
    """`seeds` runs from options.seed on, each in its folder of `folders_of`."""
    runs: list[tuple[Path, Trained]] = []
    for seed, folder in folders_of(options.seed, seeds, out).items():
        runs.append(train_gate(replace(options, seed=seed), folder, progress))
    return runs


def folders_of(first: int, seeds: int, out: Path) -> dict[int, Path]:
    """Run folder of each seed: `out` of a single one, folders below it of several."""
    return {seed: out if seeds == 1 else out / f"seed-{seed}" for seed in range(first, first + seeds)}


def best_of(runs: Sequence[tuple[Path, Trained]]) -> tuple[Path, Trained]:
    """The run with the lowest held-out error; the first where none was held out."""
    return min(runs, key=lambda run: np.nan_to_num(run[1].score.error, nan=np.inf))
