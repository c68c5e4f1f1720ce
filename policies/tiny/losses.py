"""What TinyVLA is trained on: flow matching, and privileged heads that make it bind words to places."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from vlamem.policies.tiny.batches import Batch
from vlamem.policies.tiny.model import TinyNetwork


@dataclass(frozen=True)
class LossOptions:
    """Weights of the loss terms and the noise of a training step.

    Attributes:
        draws: (t, noise) draws per frame; they share the cost of the trunks.
        flow: flow matching.
        category, value: privileged labels read linearly from z.
        target: position that the goal refers to, and the destination of what it moves, read from the condition.
        named: positions of the one or two objects that an extra sentence names, read the same way.
        place: all these positions again, read from the places that language looks at alone.
        jitter: largest relative change of an image's channels and, halved, of its brightness.
        context_noise: deviation of the noise on the instruction's vector, so that an inexact residual is taken well.
    """

    draws: int = 4
    flow: float = 1.0
    category: float = 0.15
    value: float = 0.3
    target: float = 0.5
    named: float = 0.5
    place: float = 0.25
    jitter: float = 0.15
    context_noise: float = 0.05


def jittered(patches: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """uint8 [B, 48, n, n] to about -1..1, each image with its own gain per colour channel and brightness.

    Hues are never exchanged: the network must be able to name colours.
    """
    rows, channels = patches.shape[:2]
    gain, bias = torch.ones(rows, 3), torch.zeros(rows, 1)
    if strength:
        gain = 1 + strength * (0.5 * _spread(rows, 3, generator) + 0.5 * _spread(rows, 1, generator))
        bias = strength * _spread(rows, 1, generator) / 2
    scale = (gain / 127.5).repeat(1, channels // 3)[:, :, None, None]
    shift = (bias - gain).repeat(1, channels // 3)[:, :, None, None]
    return torch.addcmul(shift, patches.float(), scale)


def losses(
    network: TinyNetwork, batch: Batch, options: LossOptions, generator: torch.Generator, training: bool = True
) -> dict[str, Tensor]:
    """Every loss term of a batch, unweighted; `total` is their weighted sum.

    Positions are in units of the label scale, with an absolute-error loss that is quadratic below 0.1 of it.
    """
    strength = options.jitter if training else 0.0
    cameras = [jittered(c, strength, generator) for c in batch.cameras]
    z, seen = network.see(cameras, batch.proprioception)
    vectors = network.language(batch.words).float()
    if training and options.context_noise:
        vectors = vectors + options.context_noise * torch.randn(vectors.shape, generator=generator)
    condition, places = network.reader(vectors[batch.goal], seen, z, batch.proprioception)
    terms = {
        "flow": _flow(network, batch, condition, options.draws, generator),
        "category": _categories(network.categories(z).float(), batch.categories, network.config.categories),
        "value": _distance(network.values(z).float()[:, : batch.values.shape[1]], batch.values),
        "target": _two(network.target(condition).float(), batch.target, batch.destination),
        "place": _two(network.place(places).float(), batch.target, batch.destination),
    }
    if rows := len(batch.chunk):
        per = len(batch.named) // rows
        again = [(k.repeat(per, 1, 1), v.repeat(per, 1, 1)) for k, v in seen] if per > 1 else seen
        proprioception = batch.proprioception.repeat(per, 1)
        condition, places = network.reader(vectors[batch.named], again, z.repeat(per, 1), proprioception)
        wanted = batch.named_position, batch.named_destination
        terms["named"] = _two(network.target(condition).float(), *wanted)
        terms["place"] = terms["place"] + _two(network.place(places).float(), *wanted)
    weighted = [getattr(options, name) * term for name, term in terms.items()]
    return {**terms, "total": torch.stack(weighted).sum()}


def _flow(network: TinyNetwork, batch: Batch, condition: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    rows = len(batch.chunk)
    chunk, valid = batch.chunk.repeat(draws, 1, 1), batch.valid.repeat(draws, 1)
    noise = torch.randn(chunk.shape, generator=generator)
    stratum = torch.arange(draws).repeat_interleave(rows)
    t = (stratum + torch.rand(draws * rows, generator=generator)) / draws
    x = (1 - t)[:, None, None] * chunk + t[:, None, None] * noise
    velocity = network.flow(x, t, condition.repeat(draws, 1)).float()
    error = (velocity - (noise - chunk)).square().mean(2)
    mean: Tensor = (error * valid).sum() / valid.sum().clamp(min=1)
    return mean


def _categories(logits: Tensor, labels: Tensor, cardinalities: tuple[int, ...]) -> Tensor:
    total, start = logits.new_zeros(()), 0
    for i, cardinality in enumerate(cardinalities):
        known = labels[:, i] >= 0
        if bool(known.any()):
            total = total + F.cross_entropy(logits[known, start : start + cardinality], labels[known, i])
        start += cardinality
    return total


def _two(predicted: Tensor, target: Tensor, destination: Tensor) -> Tensor:
    """Distances of predicted [B, 6] to both positions; each is a mean over its own known rows."""
    return _distance(predicted[:, :3], target) + _distance(predicted[:, 3:], destination)


def _distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    known = ~wanted.isnan()
    error = F.smooth_l1_loss(predicted, wanted.nan_to_num(), beta=0.1, reduction="none")
    return (error * known).sum() / known.sum().clamp(min=1)


def _spread(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(rows, columns, generator=generator) - 1
