"""Pretraining of TinyVLA from frames: resumable, its batches and noise drawn by seed and step alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from vlamem.core.seeding import integer_seed
from vlamem.policies.tiny.batches import Batches, BatchOptions, sentences_of
from vlamem.policies.tiny.evaluate import fit_retrieval_key, held_out_metrics, linear_probe
from vlamem.policies.tiny.frames import Frames, FramesError
from vlamem.policies.tiny.language import Tokeniser
from vlamem.policies.tiny.losses import LossOptions, losses
from vlamem.policies.tiny.model import ModelConfig, TinyNetwork, parameters_of
from vlamem.policies.tiny.normaliser import Normaliser
from vlamem.policies.tiny.policy import KIND, spec_of
from vlamem.policies.tiny.weights import WeightsError, load_weights, save_weights

CHECKPOINT = "tiny_checkpoint"


@dataclass(frozen=True)
class PretrainOptions:
    """How TinyVLA is trained.

    Attributes:
        minutes: training time; the learning rate falls to zero over it.
        steps: train for this many steps instead; 0 goes by minutes.
        seed: of every random stream.
        learning_rate, weight_decay: of AdamW.
        warm_up: steps over which the learning rate rises.
        average: decay of the weight average that is shipped.
        checkpoint_minutes: time between checkpoints.
        report_steps: steps between held-out figures; 0 for none before the end.
        threads: of torch.
        bfloat16: whether matrix products run in bfloat16.
        model: sizes other than the defaults, by field of ModelConfig.
        batch, loss: how batches are drawn and what is trained on.
    """

    minutes: float = 45.0
    steps: int = 0
    seed: int = 0
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warm_up: int = 100
    average: float = 0.998
    checkpoint_minutes: float = 3.0
    report_steps: int = 500
    threads: int = 1
    bfloat16: bool = True
    model: Mapping[str, int] = field(default_factory=dict)
    batch: BatchOptions = field(default_factory=BatchOptions)
    loss: LossOptions = field(default_factory=LossOptions)


@dataclass
class _Run:
    """Where a training stands; all of it is in a checkpoint."""

    network: TinyNetwork
    average: TinyNetwork
    optimiser: torch.optim.AdamW
    tokeniser: Tokeniser
    step: int = 0
    seconds: float = 0.0


def checkpoint_of(out: str | Path) -> Path:
    """Where the training that will write `out` keeps its state."""
    return Path(f"{out}.checkpoint")


def pretrain(
    directories: Sequence[str | Path],
    out: str | Path,
    options: PretrainOptions | None = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    command: str = "",
    progress: bool = True,
) -> dict[str, float]:
    """Trains on the frames in `directories` and writes the weights to `out`; returns the held-out metrics.

    With `resume`, a training that was stopped goes on where its last checkpoint was; the frames may have grown since.
    `start_from` takes weights to begin with. Raises FramesError and WeightsError for what cannot be read or is of
    other sizes.
    """
    options = options or PretrainOptions()
    torch.set_num_threads(options.threads)
    frames, normaliser = Frames(directories), Normaliser()
    saved = checkpoint_of(out)
    run = _begin(frames, options)
    if resume and saved.exists():
        _restore(run, saved)
    elif start_from is not None:
        run = _warm_start(run, Path(start_from), options)
    training = Batches(frames, run.tokeniser, normaliser, options.batch, options.seed)
    held_out = Batches(frames, run.tokeniser, normaliser, options.batch, options.seed, held_out=True)
    if run.step == 0 and start_from is None:
        _start_heads_at_means(run, training)
    _loop(run, training, held_out, options, saved, progress)
    network = run.average.eval().requires_grad_(False)
    fit_retrieval_key(network, training)
    metrics = held_out_metrics(network, held_out)
    reworded = Batches(frames, run.tokeniser, normaliser, options.batch, options.seed, True, held_out_wording=True)
    other = held_out_metrics(network, reworded)
    metrics |= {f"{k}_held_out_wording": other[k] for k in ("target_cm", "chunk_error") if k in other}
    metrics |= linear_probe(network, training, held_out)
    metrics |= {"steps": run.step, "minutes": run.seconds / 60, "parameters_m": parameters_of(network) / 1e6}
    header = {
        "labels": {"categories": frames.meta.categories, "values": frames.meta.values},
        "options": asdict(options),
        "command": command,
        "data": _describe(frames, training, held_out),
        "metrics": {k: round(v, 5) if np.isfinite(v) else None for k, v in metrics.items()},
    }
    save_policy(network, run.tokeniser, normaliser, out, header)
    saved.unlink(missing_ok=True)
    return metrics


def save_policy(
    network: TinyNetwork, tokeniser: Tokeniser, normaliser: Normaliser, path: str | Path, header: Mapping[str, Any]
) -> None:
    """Writes what `TinyVLA.load` reads, tensors in half precision; `header` is added to the file's."""
    full = {
        **header,
        "kind": KIND,
        "config": asdict(network.config),
        "vocabulary": list(tokeniser.words),
        "normaliser": asdict(normaliser),
        "spec": spec_of(network.config, normaliser).computed(),
    }
    save_weights(path, {k: v.detach().numpy().astype(np.float16) for k, v in network.state_dict().items()}, full)


def _begin(frames: Frames, options: PretrainOptions) -> _Run:
    tokeniser = Tokeniser.of(sentences_of(frames))
    meta = frames.meta
    config = ModelConfig(
        vocabulary=tokeniser.size,
        sentence_length=tokeniser.length,
        image_size=meta.image_size,
        cameras=meta.cameras,
        horizon=meta.horizon,
        action_size=meta.action_size,
        categories=tuple(c for _, c in meta.categories),
        values=len(meta.values),
        **options.model,
    )
    return _run_of(config, tokeniser, options)


def _run_of(config: ModelConfig, tokeniser: Tokeniser, options: PretrainOptions) -> _Run:
    torch.manual_seed(integer_seed(options.seed, "network"))
    network = TinyNetwork(config)
    average = TinyNetwork(config).requires_grad_(False)
    average.load_state_dict(network.state_dict())
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=True)
    return _Run(network, average, optimiser, tokeniser)


def _loop(
    run: _Run, training: Batches, held_out: Batches, options: PretrainOptions, saved: Path, progress: bool
) -> None:
    whole = options.steps or round(options.minutes * 60)
    bar = tqdm(total=whole, disable=not progress, unit="step" if options.steps else "s", desc="pretrain")
    bar.update(min(whole, run.step if options.steps else int(run.seconds)))
    last_save, begun, before = time.monotonic(), time.monotonic(), run.seconds
    batches = training.prefetched(run.step)
    generator = torch.Generator()
    try:
        while (done := run.step if options.steps else run.seconds) < whole:
            rate = options.learning_rate * min(1.0, (run.step + 1) / options.warm_up)
            for group in run.optimiser.param_groups:
                group["lr"] = rate * (0.5 + 0.5 * np.cos(np.pi * min(1.0, done / whole)))
            generator.manual_seed(integer_seed(options.seed, "noise", run.step))
            terms = _update(run, next(batches), options, generator)
            run.step += 1
            run.seconds = before + time.monotonic() - begun
            bar.update(min(whole, run.step if options.steps else int(run.seconds)) - bar.n)
            if run.step % 20 == 0:
                bar.set_postfix({k: f"{float(v):.3f}" for k, v in terms.items()} | {"step": run.step})
            if options.report_steps and run.step % options.report_steps == 0:
                figures = held_out_metrics(run.average.eval(), held_out, count=2)
                text = "  ".join(f"{k} {v:.3f}" for k, v in figures.items())
                bar.write(f"step {run.step}, {run.seconds / 60:.1f} min, held out: {text}")
            if time.monotonic() - last_save > 60 * options.checkpoint_minutes:
                _save(run, saved)
                last_save = time.monotonic()
    except KeyboardInterrupt:
        _save(run, saved)
        raise
    finally:
        batches.close()  # type: ignore[attr-defined]  # a generator
        bar.close()


def _update(run: _Run, batch: Any, options: PretrainOptions, generator: torch.Generator) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.bfloat16):
        terms = losses(run.network, batch, options.loss, generator)
    run.optimiser.zero_grad(set_to_none=True)
    terms["total"].backward()  # type: ignore[no-untyped-call]  # torch's annotation
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
    run.optimiser.step()
    decay = min(options.average, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.average.parameters()), list(run.network.parameters()), 1 - decay)
    return {k: v.detach() for k, v in terms.items()}


def _start_heads_at_means(run: _Run, training: Batches) -> None:
    """Position heads begin at the mean label, so that no training time goes into finding the table."""
    columns, rows, scale = training.frames.columns, training.rows, training.normaliser.label_scale
    targets = columns["target"][rows]
    targets = np.tile(targets[~np.isnan(targets).any(1)], 2)
    for network in (run.network, run.average):
        with torch.no_grad():
            if len(targets):
                mean = torch.from_numpy(targets.mean(0) / scale)
                network.target.bias.copy_(mean)
                network.place.bias.copy_(mean)
            for i in range(network.config.values):
                values = columns["values"][rows, i]
                if not np.isnan(values).all():
                    network.values.bias[i] = float(np.nanmean(values) / scale)


def _save(run: _Run, path: Path) -> None:
    names = [n for n, _ in run.network.named_parameters()]
    tensors: dict[str, NDArray[Any]] = {}
    for part, network in (("network", run.network), ("average", run.average)):
        tensors |= {f"{part}.{k}": v.detach().numpy() for k, v in network.state_dict().items()}
    for name, parameter in zip(names, run.network.parameters(), strict=True):
        for moment in ("exp_avg", "exp_avg_sq"):
            if parameter in run.optimiser.state:
                tensors[f"{moment}.{name}"] = run.optimiser.state[parameter][moment].numpy()
    header = {
        "kind": CHECKPOINT,
        "step": run.step,
        "seconds": run.seconds,
        "config": asdict(run.network.config),
        "vocabulary": list(run.tokeniser.words),
    }
    save_weights(path, tensors, header)


def _restore(run: _Run, path: Path) -> None:
    tensors, header = load_weights(path, CHECKPOINT)
    _check_sizes(run, header, path)
    for part, network in (("network", run.network), ("average", run.average)):
        own = {k.removeprefix(f"{part}."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith(f"{part}.")}
        network.load_state_dict(own)
    for name, parameter in run.network.named_parameters():
        if f"exp_avg.{name}" in tensors:
            moments = {m: torch.empty_like(parameter).detach() for m in ("exp_avg", "exp_avg_sq")}
            for moment, tensor in moments.items():  # the fused step needs the parameter's own memory layout
                tensor.copy_(torch.from_numpy(tensors[f"{moment}.{name}"]))
            run.optimiser.state[parameter] = {"step": torch.tensor(float(header["step"])), **moments}
    run.tokeniser = Tokeniser(tuple(header["vocabulary"]), run.network.config.sentence_length)
    run.step, run.seconds = int(header["step"]), float(header["seconds"])


def _warm_start(run: _Run, path: Path, options: PretrainOptions) -> _Run:
    """A run at step 0 with the weights and vocabulary of a policy file."""
    tensors, header = load_weights(path, KIND)
    _check_sizes(run, header, path)
    run.tokeniser = Tokeniser(tuple(header["vocabulary"]), run.network.config.sentence_length)
    for network in (run.network, run.average):
        network.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in tensors.items()})
    return run


def _check_sizes(run: _Run, header: Mapping[str, Any], path: Path) -> None:
    for name, value in asdict(run.network.config).items():
        stored = header["config"].get(name)
        if stored != (list(value) if isinstance(value, tuple) else value):
            raise WeightsError(
                f"{path} has {name} {stored!r} but these frames and options give {value!r}: train on frames with the "
                "same labels and sentences, or start anew"
            )


def _describe(frames: Frames, training: Batches, held_out: Batches) -> dict[str, Any]:
    task, episode = frames.columns["task"], frames.columns["episode"]
    episodes = {n: len(np.unique(episode[task == i])) for i, n in enumerate(frames.meta.tasks)}
    return {
        "training_frames": len(training.rows),
        "held_out_frames": len(held_out.rows),
        "episodes": episodes,
        "recorded_by": frames.meta.command,
    }


__all__ = ["CHECKPOINT", "FramesError", "PretrainOptions", "checkpoint_of", "pretrain", "save_policy"]
