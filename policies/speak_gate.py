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
from vlamem.memory.aura.weights import Header, TrainedFor, load_weights, save_weights
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
        ticks, rows: of a batch.
        hidden: width of the head's hidden layer.
        seed: of parameters and batches.
        answers: see speak_batches.Wanted.
        used_with: the policy that the features must be of, or None.
        command: written into the file.
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
    ticks: int = 128
    rows: int = 24
    hidden: int = 128
    seed: int = 0
    answers: bool = True
    used_with: TrainedFor | None = None
    command: str = "vlamem train-gate"

    def training(self) -> SpeakTraining:
        """The training that these options mean."""
        signal = "counterfactual" if self.gate == "counterfactual" else "straight-through"
        train = TrainConfig(
            updates=self.updates,
            weight_decay=0.02,
            learning_rate=self.learning_rate,
            write_cost=self.write_cost if self.gate in METHODS.values() else 0.0,
            ramp=(0.5, 0.8),
            signal=signal,
        )
        return SpeakTraining(train, self.ticks, self.rows, self.seed, calibration=max(150, self.updates // 4))


def data_for(options: GateOptions) -> SpeakData:
    """The recordings as training data. Raises FeaturesError for missing, broken or foreign ones."""
    if options.targets not in ("context", "chunk", "both"):
        raise ValueError(f"targets {options.targets!r}: choose context, chunk or both")
    wanted = Wanted(context=options.targets != "chunk", chunk=options.targets != "context", answers=options.answers)
    return SpeakData(open_features(options.features, options.used_with), wanted, options.tasks)


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

    A killed run goes on from its last checkpoint. Raises FeaturesError and ValueError as `data_for`, `train_to_speak`.
    """
    data = data_for(options)
    config = AuraConfig(data.feature_size, head_for(data, options.hidden), gate=options.gate, rate=options.rate)
    memory = AuraMemory(config)
    trained = train_to_speak(memory, data, options.training(), out, progress)
    params, metrics = trained.params, metrics_of(trained)
    assert isinstance(trained.memory, AuraMemory)
    memory = trained.memory
    if options.gate in METHODS.values():
        params, shifts = with_budget(memory, params, data, options, trained.score.rate)
        metrics |= shifts
    config, params = without_answers(memory.config, params)
    path = out / "gate.safetensors"
    save_weights(path, Header(config, data.meta.policy, options.command, metrics), named_arrays(params))
    write_curves(out, trained)
    return path, trained


def metrics_of(trained: Trained) -> dict[str, float]:
    """Figures for a weights file's header; those that could not be measured are left out."""
    found = {
        "held_out_error": trained.score.error,
        "held_out_right": trained.score.right,
        "writes_per_tick": trained.score.rate,
        "updates": float(trained.updates),
        "minutes": trained.seconds / 60,
        "training_bytes": float(trained.training_bytes),
    }
    for task, (right, rate) in trained.score.by_task.items():
        found |= {f"right.{task}": right, f"writes.{task}": rate}
    return {name: round(float(x), 5) for name, x in found.items() if np.isfinite(x)}


def named_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by dotted name as NumPy arrays."""
    return {name: np.asarray(x) for name, x in flatten(params).items()}


def with_budget(
    memory: AuraMemory, params: Params, data: SpeakData, options: GateOptions, rate: float
) -> tuple[Params, dict[str, float]]:
    """`params` held to the budget if they write more, and how far the threshold moves from there for other budgets."""
    batch = jax.tree.map(jnp.asarray, data.batch(options.ticks, 32, stream(options.seed, "speak", "budget")))
    held = jax.jit(lambda p, r: hold_rate(memory, p, batch, r))
    if options.budget is not None and rate > options.budget:
        params = held(params, options.budget)
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
    data = data_for(replace(options, answers=False))
    header, arrays = load_weights(start_from, data.meta.policy)
    config = header.config
    memory = AuraMemory(config)
    params = in_policy_units(memory, params_of(config, arrays), data, back=True)
    how = TuneOptions(options.updates, write_cost=options.write_cost, ticks=min(64, options.ticks), seed=options.seed)
    tuned = tune_gate(memory, params, data, how, progress)
    metrics = dict(header.metrics) | {"tuning_state_bytes": float(tuned.state_bytes)}
    path = out / "gate.safetensors"
    made = in_policy_units(memory, tuned.params, data)
    save_weights(path, Header(config, header.trained_for, options.command, metrics), named_arrays(made))
    return path, tuned


def held_out_score_of(path: Path, options: GateOptions) -> Score:
    """What held-out episodes of the recordings say of a gate's weights file.

    Raises WeightsError for a file of another policy than the features'.
    """
    data = data_for(replace(options, answers=False))
    header, arrays = load_weights(path, data.meta.policy)
    memory = AuraMemory(header.config)
    params = in_policy_units(memory, params_of(header.config, arrays), data, back=True)
    return held_out_score(memory, params, data, options.training())


def train_seeds(
    options: GateOptions, seeds: int, out: Path, progress: Progress = lambda i, last: None
) -> list[tuple[Path, Trained]]:
    """`seeds` runs from options.seed on, each in a folder of its own when there are several."""
    runs: list[tuple[Path, Trained]] = []
    for seed in range(options.seed, options.seed + seeds):
        folder = out if seeds == 1 else out / f"seed-{seed}"
        runs.append(train_gate(replace(options, seed=seed), folder, progress))
    return runs


def best_of(runs: Sequence[tuple[Path, Trained]]) -> tuple[Path, Trained]:
    """The run with the lowest held-out error."""
    return min(runs, key=lambda run: run[1].score.error)
