"""Held-out figures of a TinyVLA in training, and what can be read linearly from its feature z."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlamem.policies.tiny.batches import Batches
from vlamem.policies.tiny.losses import LossOptions, jittered, losses
from vlamem.policies.tiny.model import TinyNetwork


def held_out_metrics(network: TinyNetwork, batches: Batches, count: int = 4) -> dict[str, float]:
    """Loss terms, position errors [cm] and the error of sampled chunks over `count` held-out batches."""
    generator = torch.Generator().manual_seed(0)
    centimetres = 100 * batches.normaliser.label_scale
    sums: dict[str, list[float]] = {}
    with torch.inference_mode():
        for number in range(count):
            batch = batches.batch(number)
            found = {k: float(v) for k, v in losses(network, batch, LossOptions(), generator, training=False).items()}
            z, seen = network.see([jittered(c, 0.0, generator) for c in batch.cameras], batch.proprioception)
            vectors = network.language(batch.words)
            condition, _ = network.reader(vectors[batch.goal], seen, z, batch.proprioception)
            n = len(batch.chunk)
            other, _ = network.reader(vectors[batch.named[-n:]], seen, z, batch.proprioception)
            goal, named = network.target(condition), network.target(other)
            found["target_cm"] = centimetres * _length(goal[:, :3] - batch.target)
            found["destination_cm"] = centimetres * _length(goal[:, 3:] - batch.destination)
            found["named_cm"] = centimetres * _length(named[:, :3] - batch.named_position[-n:])
            found["named_destination_cm"] = centimetres * _length(named[:, 3:] - batch.named_destination[-n:])
            x = torch.randn(batch.chunk.shape, generator=generator)
            for step in range(10):
                x = x - 0.1 * network.flow(x, torch.full((n,), 1 - step / 10), condition)
            known = ~batch.target.isnan().any(1)[:, None] & batch.valid
            if bool(known.any()):
                found["chunk_error"] = float((x.clamp(-1, 1) - batch.chunk).abs().mean(2)[known].mean())
            for name, value in found.items():
                sums.setdefault(name, []).append(value)
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for name, v in sums.items()}


def features_of(network: TinyNetwork, batches: Batches, count: int) -> dict[str, NDArray[np.float32]]:
    """z, categories and values (in units of the label scale) of up to `count` rows that lie evenly over the frames."""
    rows = batches.rows[np.linspace(0, len(batches.rows) - 1, min(count, len(batches.rows))).astype(np.int64)]
    parts: dict[str, list[NDArray[np.float32]]] = {"z": [], "categories": [], "values": []}
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for start in range(0, len(rows), 256):
            batch = batches.of_rows(rows[start : start + 256], rng)
            cameras = [jittered(c, 0.0, generator) for c in batch.cameras]
            parts["z"].append(network.see(cameras, batch.proprioception)[0].numpy())
            parts["categories"].append(batch.categories.numpy().astype(np.float32))
            parts["values"].append(batch.values.numpy())
    return {name: np.concatenate(p) for name, p in parts.items()}


def linear_probe(network: TinyNetwork, training: Batches, held_out: Batches, count: int = 3000) -> dict[str, float]:
    """Ridge probes of z, fitted on training frames: held-out accuracy and majority share of every category, and the
    median absolute error [cm] of every value.
    """
    fit, test = features_of(network, training, count), features_of(network, held_out, count)
    meta = training.frames.meta
    report: dict[str, float] = {}
    for i, (name, cardinality) in enumerate(meta.categories):
        label, wanted = fit["categories"][:, i].astype(int), test["categories"][:, i].astype(int)
        known, labelled = label >= 0, wanted >= 0
        if known.sum() > 1 and labelled.any():
            guess = _ridge(fit["z"][known], np.eye(cardinality)[label[known]], test["z"][labelled]).argmax(1)
            report[f"probe_{name}"] = float((guess == wanted[labelled]).mean())
            report[f"majority_{name}"] = float(np.bincount(wanted[labelled]).max() / labelled.sum())
    for i, name in enumerate(meta.values):
        known, labelled = ~np.isnan(fit["values"][:, i]), ~np.isnan(test["values"][:, i])
        if known.sum() > 1 and labelled.any():
            predicted = _ridge(fit["z"][known], fit["values"][known, i : i + 1], test["z"][labelled])[:, 0]
            error = np.median(np.abs(predicted - test["values"][labelled, i]))
            report[f"probe_{name}_cm"] = float(error) * 100 * training.normaliser.label_scale
    return report


def fit_retrieval_key(network: TinyNetwork, training: Batches, count: int = 3000) -> None:
    """Sets the network's key to the whitened leading principal components of z over training frames."""
    z = features_of(network, training, count)["z"].astype(np.float64)
    mean = z.mean(0)
    _, singular, axes = np.linalg.svd(z - mean, full_matrices=False)
    deviation = singular / np.sqrt(max(1, len(z) - 1))
    size = network.config.key
    projection = np.zeros((z.shape[1], size))
    n = min(size, len(deviation))
    projection[:, :n] = axes[:n].T / np.maximum(deviation[:n], 0.05 * deviation[0] + 1e-6)
    network.key_mean.copy_(torch.from_numpy(mean))
    network.key_projection.copy_(torch.from_numpy(projection))


def _ridge(x: NDArray[np.float32], y: NDArray[Any], test: NDArray[np.float32]) -> NDArray[np.float64]:
    def padded(a: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.concatenate([a, np.ones((len(a), 1))], 1).astype(np.float64)

    a = padded(x)
    weights = np.linalg.solve(a.T @ a + 1e-3 * len(a) * np.eye(a.shape[1]), a.T @ y)
    return np.asarray(padded(test) @ weights)


def _length(difference: torch.Tensor) -> float:
    return float(difference.norm(dim=1).nanmedian())
