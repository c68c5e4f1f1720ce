"""From recorded features to a gate's weights file: what `vlamem train-gate` does."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vlamem.memory.aura import AuraConfig, AuraMemory, HeadConfig
from vlamem.memory.aura.dispatch import params_of
from vlamem.memory.aura.weights import Arrays, Header, TrainedFor, load_weights, save_weights
from vlamem.memory.protocol import Params, flatten
from vlamem.memory.seeding import stream
from vlamem.memory.training import TrainConfig, hold_rate
from vlamem.policies.features import open_features
from vlamem.policies.speak_batches import SpeakData, Wanted
from vlamem.policies.speak_training import (
    Progress,
    Score,
    SpeakTraining,
    Trained,
    held_out_score,
    in_policy_units,
    train_to_speak,
)
from vlamem.policies.speak_tuning import Tuned, TuneOptions, tune_gate

BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Writes per tick for which the file keeps how far the threshold moves."""
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
        params, shifts = with_budget(memory, params, data, options, trained.score.rate)
        if params is not trained.params:  # the figures are of the gate that is saved
            held = held_out_score(memory, in_policy_units(memory, params, data, back=True), data, options.training())
            trained = replace(trained, params=params, score=held)
        metrics = metrics_of(trained) | shifts
    config, params = without_answers(memory.config, params)
    path = out / "gate.safetensors"
    save_weights(path, Header(config, data.meta.policy, options.command, metrics), named_arrays(params))
    write_curves(out, trained)
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


def with_budget(
    memory: AuraMemory, params: Params, data: SpeakData, options: GateOptions, rate: float
) -> tuple[Params, dict[str, float]]:
    """`params` held to the budget if they write more, and how far the threshold moves from there for other budgets.

    A threshold that held-out episodes ask to rise is not lowered because a batch of training asks for it.
    """
    batch = jax.tree.map(jnp.asarray, data.batch(options.ticks, 32, stream(options.seed, "speak", "budget")))
    held = jax.jit(lambda p, r: hold_rate(memory, p, batch, r))
    if options.budget is not None and rate > options.budget:
        less = held(params, options.budget)
        params = less if float(less.gate["out_bias"]) < float(params.gate["out_bias"]) else params
    bias = float(params.gate["out_bias"])
    shifts = {f"threshold_shift@{b:g}": bias - float(held(params, b).gate["out_bias"]) for b in BUDGETS}
    return params, {name: round(by, 4) for name, by in shifts.items()}


def write_curves(out: Path, trained: Trained) -> None:
    """out/curves.json, and out/curves.png where matplotlib is installed."""
    (out / "curves.json").write_text(json.dumps(trained.history, indent=1) + "\n", encoding="utf-8")
    try:
        import matplotlib
    except ModuleNotFoundError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), constrained_layout=True)
    at = [h["update"] for h in trained.history]
    for name, axes in (("error", left), ("held_out_error", left), ("right", right), ("held_rate", right)):
        axes.plot(at, [h[name] for h in trained.history], label=name.replace("_", " "))
    left.set(xlabel="update", ylabel="action error", ylim=(0, None))
    right.set(xlabel="update", ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(out / "curves.png", dpi=100)
    plt.close(figure)


def tune_on_robot(
    options: GateOptions, start_from: Path, out: Path, progress: Callable[[int], None] = lambda done: None
) -> tuple[Path, Tuned]:
    """Tunes the gate of a weights file within 256 KiB of training state; writes out/gate.safetensors.

    Raises WeightsError for a file of another policy than the features', and what `tune_gate` raises.
    """
    header, arrays, data = opened(start_from, options)
    config = header.config
    memory = AuraMemory(config)
    params = in_policy_units(memory, params_of(config, arrays), data, back=True)
    how = TuneOptions(options.updates, write_cost=options.write_cost, ticks=min(64, options.ticks), seed=options.seed)
    tuned = tune_gate(memory, params, data, how, progress)
    path = out / "gate.safetensors"
    made = in_policy_units(memory, tuned.params, data)
    metrics = {"tuning_state_bytes": float(tuned.state_bytes)}  # those of the gate before are not of this one
    save_weights(path, Header(config, header.trained_for, options.command, metrics), named_arrays(made))
    return path, tuned


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
        _, shifts = with_budget(memory, params, data, replace(options, budget=None), score.rate)
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
