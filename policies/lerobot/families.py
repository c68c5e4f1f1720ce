"""What the policy families of lerobot have in common for us: their sampler, opened, and their taps."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from vlamem.policies.lerobot.injection import Point
from vlamem.policies.lerobot.packing import Vision
from vlamem.policies.lerobot.steering import Steer
from vlamem.policies.lerobot.taps import Tap

SENTENCE = "sentence"
"""The point of networks that read an instruction: what it has become in them."""
DRAWS = 4
"""Noise levels at which a sampler's loss is asked for at once."""


@dataclass(frozen=True)
class Language:
    """Where a network takes its instruction.

    Attributes:
        module: dotted name; its output is what the sentence became, [B, L, C] by token or [B, C].
        size: C.
        by_token: whether the output has an axis of tokens.
    """

    module: str
    size: int
    by_token: bool

    @property
    def point(self) -> Point:
        """Where a residual on it enters."""
        return Point(self.module, self.size, "words" if self.by_token else "vector")


@dataclass(frozen=True)
class Request:
    """One call of a sampler.

    Attributes:
        batch: the preprocessor's output.
        noise: [B, *noise_shape], the network's own size.
        generators: one a row, for samplers that draw again at every step.
        steer: None for the bare policy.
        guidance: real-time-chunking arguments of lerobot, e.g. inference_delay and prev_chunk_left_over.
    """

    batch: dict[str, Any]
    noise: Tensor
    generators: Sequence[torch.Generator] = ()
    steer: Steer | None = None
    guidance: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Family(Protocol):
    """One kind of network of lerobot.

    Attributes:
        network: the policy object.
        horizon: H, steps of a chunk.
        noise_shape: steps and width of the noise that the network takes.
        first: step of it at which the chunk begins.
        history: observations that the network reads.
        taps: by alias; "vision" is always there.
        tap: where the feature is read by default: the tap that keeps most of a cue in `vlamem bench taps` at the vision
            tower's cost.
        language: None for a network without an instruction.
        resizes: whether images of any size may be given.
        points: where a proposed context may enter, by name; the first is the usual one.
        vision: through which all that it sees goes.
    """

    network: Any
    horizon: int
    noise_shape: tuple[int, int]
    first: int
    history: int
    taps: dict[str, Tap]
    tap: str
    language: Language | None
    resizes: bool
    points: dict[str, Point]
    vision: tuple[Vision, ...]

    def run(self, request: Request) -> Tensor:
        """[B, H, A] in the network's units."""
        ...

    def loss(self, batch: dict[str, Any], wanted: Tensor, rng: np.random.Generator) -> Tensor:
        """[B], the network's own imitation loss of chunks [B, H, A] in its units, without what regularises training.

        What is drawn comes from `rng`. The gradient is kept where gradients are enabled.
        """
        ...

    def varied(self, rows: int, rng: np.random.Generator) -> AbstractContextManager[None]:
        """Inside the block `rows` rows differ in all that is drawn beside the noise of a request."""
        ...


class DrawsNoiseAlone:
    """What families have in common that draw nothing beside the noise of a request."""

    def varied(self, rows: int, rng: np.random.Generator) -> AbstractContextManager[None]:
        """Rows differ by their noise alone."""
        return nullcontext()


class Windowed(DrawsNoiseAlone):
    """What families have in common that read a window of observations and draw actions from its first step on.

    The chunk begins at the window's last step. Images are taken at the network's own size alone, unless the
    configuration says to what size they are scaled.
    """

    tap = "vision"

    def __init__(self, network: Any) -> None:
        config = network.config
        self.network = network
        self.history, self.horizon = int(config.n_obs_steps), int(config.n_action_steps)
        self.first = self.history - 1
        self.resizes = any(getattr(config, f"{of}resize_shape", None) is not None for of in ("", "image_"))
        self.noise_shape = (int(config.horizon), int(config.action_feature.shape[0]))

    def encoders(self, shared: str, own: str) -> tuple[str, ...]:
        """Names of the image encoders: `shared`, or `own` with a number behind it where each camera has one."""
        if not self.network.config.use_separate_rgb_encoder_per_camera:
            return (shared,)
        return tuple(f"{own}.{i}" for i in range(len(self.network.config.image_features)))

    def window(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """`batch` as the network's encoders want it: cameras stacked, and an axis of time where it has none."""
        images = [_with_time(batch[key], 4) for key in self.network.config.image_features]
        state = _with_time(batch["observation.state"], 2)
        return {**batch, "observation.images": torch.stack(images, dim=-4), "observation.state": state}

    def chunk(self, actions: Tensor) -> Tensor:
        """[B, H, A] of everything that was drawn."""
        return actions[:, self.first : self.first + self.horizon]


def _with_time(x: Tensor, without: int) -> Tensor:
    return x.unsqueeze(1) if x.ndim == without else x


def named_modules(network: nn.Module, **aliases: str | tuple[str, ...]) -> dict[str, Tap]:
    """Taps of these modules; raises AttributeError when lerobot has moved one."""
    taps = {}
    for name, modules in aliases.items():
        paths = (modules,) if isinstance(modules, str) else modules
        for path in paths:
            network.get_submodule(path)
        taps[name] = Tap(name, paths)
    return taps


def mode_of_step(carried: Tensor, own: Tensor, prior: Tensor) -> Tensor:
    """Rows that are carried from `prior`, the others from `own`; [B, H, A]."""
    return torch.where(carried[:, None, None], prior, own)
