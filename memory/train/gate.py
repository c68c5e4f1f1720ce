"""From recorded features to a gate's weights file: what `vlamem train-gate` does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlamem.memory.designs.aura import AuraConfig, AuraMemory, HeadConfig
from vlamem.memory.designs.aura.dispatch import params_of
from vlamem.memory.protocol import Params, flatten
from vlamem.memory.train.batches import SpeakData, Wanted
from vlamem.memory.train.budget import with_budget
from vlamem.memory.train.curves import write_curves
from vlamem.memory.train.features import open_features
from vlamem.memory.train.fit import (
    Progress,
    Score,
    SpeakTraining,
    Trained,
    held_out_score,
    in_policy_units,
    train_to_speak,
)
from vlamem.memory.train.loop import TrainConfig
from vlamem.memory.train.on_device import Tuned, TuneOptions, tune_gate
from vlamem.memory.weights import Arrays, Header, TrainedFor, load_weights, save_weights

METHODS = {"bptt": "learned", "counterfactual": "counterfactual"}
"""Gate of AuraConfig by method: straight-through back-propagation, or the counterfactual action error."""


@dataclass(frozen=True)
class GateOptions:
    """What `train_gate` is to do.

    Attributes:
        features: recordings.
        tasks: of the recording, all when empty.
        targets: "context", "chunk" or "both".
        gate: of memory.aura.GATE_KINDS; "learned" is trained by back-propagation.
        budget: writes per tick at most, or None.
        rate: of the random and periodic gates.
        updates, learning_rate, write_cost: of the training.
        ticks, rows: of a batch; a row should take the longest episode, or what it asks at its end is seldom trained on.
        weights: of single tasks; see speak_batches.Wanted.
        hidden: width of the head's hidden layer.
        seed: of parameters and batches.
        answers: see speak_batches.Wanted.
        used_with: the policy that the features must be of, or None.
        command: written into the file.
        start_from: weights of a learned gate to begin with, or None for fresh ones.
    """

    features: tuple[Path, ...]
    tasks: tuple[str, ...] = ()
    targets: str = "both"
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

    def training(self) -> SpeakTraining:
        """The training that these options mean."""
        signal = "counterfactual" if self.gate == "counterfactual" else "straight-through"
        train = TrainConfig(
            updates=self.updates,
            weight_decay=0.02,
            learning_rate=self.learning_rate,
            write_cost=self.write_cost if self.gate in METHODS.values() else 0.0,
            # a memory that is trained already need not be spared the cost of writing at first
            ramp=(0.5, 0.8) if self.start_from is None else (0.0, 0.0),
            signal=signal,
        )
        return SpeakTraining(train, self.ticks, self.rows, self.seed, calibration=max(150, self.updates // 4))


def data_for(options: GateOptions, head: HeadConfig | None = None) -> SpeakData:
    """The recordings as training data: targets for a fresh memory, or those of them that a trained `head` proposes.

    Raises FeaturesError for missing, broken or foreign recordings.
    """
    if options.targets not in ("context", "chunk", "both"):
        raise ValueError(f"targets {options.targets!r}: choose context, chunk or both")
    context, chunk, answers = options.targets != "chunk", options.targets != "context", options.answers
    if head is not None:  # which has lost its answers when it was saved
        context, chunk, answers = context and head.context > 0, chunk and head.chunk is not None, False
    wanted = Wanted(context=context, chunk=chunk, answers=answers, weights=options.weights)
    return SpeakData(open_features(options.features, options.used_with), wanted, options.tasks)


def opened(path: Path, options: GateOptions) -> tuple[Header, Arrays, SpeakData]:
    """A gate's weights file, and the recordings as training data for what it proposes.

    Raises WeightsError for a gate of another policy than the recordings'.
    """
    data = data_for(options, load_weights(path)[0].config.head)
    header, arrays = load_weights(path, data.meta.policy)
    return header, arrays, data


def head_for(data: SpeakData, hidden: int) -> HeadConfig:
    """The head that proposes what is wanted."""
    wanted, meta = data.wanted, data.meta
    return HeadConfig(
        chunk=meta.chunk if wanted.chunk else None,
        context=meta.context_size if wanted.context else 0,
        answer=len(meta.goals) if wanted.answers else 0,
        hidden=hidden,
    )


def without_answers(config: AuraConfig, params: Params) -> tuple[AuraConfig, Params]:
    """Configuration and parameters whose head no longer chooses among sentences, which only training needs."""
    kept = replace(config, head=replace(config.head, answer=0))
    head, last = params.head, kept.head.outputs
    return kept, params._replace(head=head._replace(out=head.out[:, :last], out_bias=head.out_bias[:last]))


def train_gate(options: GateOptions, out: Path, progress: Progress = lambda i, last: None) -> tuple[Path, Trained]:
    """Trains AURA-Mem on recorded features; writes out/gate.safetensors and out/curves.json, and returns the first.

    A killed run goes on from its last checkpoint. Raises FeaturesError and ValueError as `data_for`, `train_to_speak`,
    and WeightsError for a gate to start from that is of another policy.
    """
    if options.start_from is None:
        data, start = data_for(options), None
        config = AuraConfig(data.feature_size, head_for(data, options.hidden), gate=options.gate, rate=options.rate)
    else:
        config, start, data = _begun(options.start_from, options)
    memory = AuraMemory(config)
    trained = train_to_speak(memory, data, options.training(), out, progress, start)
    params, metrics = trained.params, metrics_of(trained)
    assert isinstance(trained.memory, AuraMemory)
    memory = trained.memory
    if options.gate in METHODS.values():
        params, shifts = with_budget(memory, params, data, options.budget, options.seed)
        if params is not trained.params:  # the figures are of the gate that is saved
            held = held_out_score(memory, in_policy_units(memory, params, data, back=True), data, options.training())
            trained = replace(trained, params=params, score=held)
        metrics = metrics_of(trained) | shifts
    config, params = without_answers(memory.config, params)
    path = out / "gate.safetensors"
    save_weights(path, Header(config, data.meta.policy, options.command, metrics), named_arrays(params))
    write_curves(out, trained.history, ("error", "held_out_error"), ("right", "held_rate"), "action error")
    return path, trained


def _begun(path: Path, options: GateOptions) -> tuple[AuraConfig, Params, SpeakData]:
    """Configuration and parameters, in training's units, of the gate that a training starts from, and its data.

    Its bound is dropped, for the training finds another.
    """
    header, arrays, data = opened(path, options)
    config, head = header.config, head_for(data, header.config.head.hidden)
    if not (config.gate in METHODS.values() and options.gate in METHODS.values()):
        raise ValueError(f"gate {config.gate!r} cannot start a {options.gate!r} one: only learned gates are trained on")
    if config.head != head:
        raise ValueError(f"{path} proposes {config.head}, the training asks for {head}: see --targets")
    config = replace(config, gate=options.gate, bound=None)
    return config, in_policy_units(AuraMemory(config), params_of(config, arrays), data, back=True), data


def metrics_of(trained: Trained) -> dict[str, float]:
    """Figures for a weights file's header; those that could not be measured are left out."""
    cost = {
        "updates": float(trained.updates),
        "minutes": round(trained.seconds / 60, 5),
        "training_bytes": float(trained.training_bytes),
    }
    return cost | score_metrics(trained.score)


def score_metrics(score: Score) -> dict[str, float]:
    """What held-out episodes said, for a weights file's header."""
    found = {"held_out_error": score.error, "held_out_right": score.right, "writes_per_tick": score.rate}
    for task, (right, rate) in score.by_task.items():
        found |= {f"right.{task}": right, f"writes.{task}": rate}
    return {name: round(float(x), 5) for name, x in found.items() if np.isfinite(x)}


def named_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by dotted name as NumPy arrays."""
    return {name: np.asarray(x) for name, x in flatten(params).items()}


def tune_on_robot(
    options: GateOptions, start_from: Path, out: Path, progress: Callable[[int], None] = lambda done: None
) -> tuple[Path, Tuned]:
    """Tunes the gate of a weights file within 256 KiB of training state; writes out/gate.safetensors and the curves.

    Updates, learning rate, write cost, ticks, rows and seed are those of `options`. Raises WeightsError for a file of
    another policy than the features', and what `tune_gate` raises.
    """
    header, arrays, data = opened(start_from, options)
    config = header.config
    memory = AuraMemory(config)
    params = in_policy_units(memory, params_of(config, arrays), data, back=True)
    how = TuneOptions(
        options.updates, options.learning_rate, options.write_cost, options.ticks, options.rows, options.seed
    )
    tuned = tune_gate(memory, params, data, how, progress)
    path = out / "gate.safetensors"
    made = in_policy_units(memory, tuned.params, data)
    metrics = {"tuning_state_bytes": float(tuned.state_bytes)}  # those of the gate before are not of this one
    save_weights(path, Header(config, header.trained_for, options.command, metrics), named_arrays(made))
    noted = enumerate(zip(tuned.errors.tolist(), tuned.rates.tolist(), strict=True), 1)
    history = [{"update": float(i), "error": error, "rate": rate} for i, (error, rate) in noted]
    write_curves(out, history, ("error",), ("rate",), "action error")
    return path, tuned


def recalibrate(start_from: Path, options: GateOptions, out: Path) -> tuple[Path, dict[str, float]]:
    """Measures how far the threshold of a weights file moves for each budget, and writes out/gate.safetensors.

    Nothing else of the file changes: its arrays are copied bit for bit, and so are its other figures. Raises ValueError
    for a gate without a threshold, WeightsError for one of another policy than the features'.
    """
    header, arrays, data = opened(start_from, options)
    if header.config.gate not in METHODS.values():
        raise ValueError(f"gate {header.config.gate!r} of {start_from} learns no threshold that a budget could move")
    _, shifts = with_budget(AuraMemory(header.config), params_of(header.config, arrays), data, None, options.seed)
    path = out / "gate.safetensors"
    save_weights(path, replace(header, metrics={**header.metrics, **shifts}), arrays)
    return path, shifts


def held_out_score_of(path: Path, options: GateOptions, keep: bool = False) -> Score:
    """What held-out episodes of the recordings say of a gate's weights file.

    With `keep` the file is given these figures, and how far its threshold moves for other budgets: for a gate that was
    tuned, whose file says nothing of them yet. Raises WeightsError for a gate of another policy than the features'.
    """
    header, arrays, data = opened(path, options)
    memory = AuraMemory(header.config)
    params = in_policy_units(memory, params_of(header.config, arrays), data, back=True)
    score = held_out_score(memory, params, data, options.training())
    if keep:
        _, shifts = with_budget(memory, params, data, None, options.seed)
        save_weights(path, replace(header, metrics={**header.metrics, **score_metrics(score), **shifts}), arrays)
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
