"""A lerobot checkpoint as a frozen policy."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.observation import Encoding, Observation
from vlamem.core.proposal import Proposal
from vlamem.core.seeding import stream
from vlamem.core.spec import ActionSpec, PolicySpec, StateForm
from vlamem.policies.lerobot import imitation
from vlamem.policies.lerobot.bridge import STATE, Bridge
from vlamem.policies.lerobot.encoding import Inputs, TapEncoding
from vlamem.policies.lerobot.families import SENTENCE, Family, Request
from vlamem.policies.lerobot.injection import MASK, TOKENS, injected
from vlamem.policies.lerobot.packing import Packing, recorded, replayed
from vlamem.policies.lerobot.source import CheckpointError
from vlamem.policies.lerobot.steering import Steer, place, row_generators, widen
from vlamem.policies.lerobot.taps import Tap, captured, parse_tap, pool, read
from vlamem.policies.steering import LOWEST, start_time

KEY_SIZE = 256
"""Largest retrieval key; features that are wider are projected at random, which keeps angles."""
_SENTENCES = 256
"""Remembered at a time; who asks may invent new ones for ever."""


@dataclass
class LeRobotPolicy:
    """A checkpoint of lerobot; satisfies FrozenPolicy. Load one with `vlamem.policies.lerobot.load`.

    `sample` takes and gives chunks in the environment's units, after the checkpoint's post-processor, and reads
    proposals in them too. Noise is [B, H, A], or [B, *noise_shape] for the whole of what the network takes.

    Attributes:
        family: the network with its sampler.
        bridge: its processors.
        tap: where z is read.
        lowest_start: flow time below which a proposed chunk is taken as it is; one of weight w enters at 1 - w.
        ensemble: coefficient of the temporal ensemble that the checkpoint is to be played with; None without one.
        weights: its file, where it was loaded from one.
        injection: name of the point at which a proposed context enters; the family's usual one when empty.
    """

    family: Family
    bridge: Bridge
    tap: Tap
    spec: PolicySpec = field(init=False)
    lowest_start: float = LOWEST
    ensemble: float | None = None
    weights: Path | None = None
    injection: str = ""
    packing: Packing = field(init=False)

    def __post_init__(self) -> None:
        self._contexts: dict[str, NDArray[np.float32]] = {}
        self._guidance: Mapping[str, Any] = {}
        self._projection: Tensor | None = None
        points = self.family.points
        self.injection = self.injection or next(iter(points))
        if self.injection not in points:
            raise CheckpointError(
                f"policies of type '{self.network.config.type}' have no injection point '{self.injection}': choose "
                f"{', '.join(points)}"
            )
        self._hash: str | None = None
        if not 0 <= self.lowest_start < 1:
            raise CheckpointError(f"lowest_start is {self.lowest_start}: expected 0 or more and less than 1")

    @property
    def weights_sha256(self) -> str | None:
        """Of the whole weights file, 64 hexadecimal digits; None where there is none."""
        if self._hash is None and self.weights is not None:
            with self.weights.open("rb") as file:
                self._hash = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hash

    @property
    def history(self) -> int:
        """Observations that the network reads at once, this one included."""
        return self.family.history

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Steps and width of the noise that the network itself takes."""
        return self.family.noise_shape

    def describe(
        self,
        name: str,
        control_hz: float,
        action: ActionSpec,
        image_size: int,
        cameras: tuple[str, ...],
        state: StateForm = "",
    ) -> None:
        """Runs one pass on a grey image and writes down the sizes that it shows; called once, by `load`."""
        square = (image_size, image_size)
        sizes = tuple(self._size_of(camera, square) for camera in cameras)
        images = {c: np.full((1, *size, 3), 127, np.uint8) for c, size in zip(cameras, sizes, strict=True)}
        obs = Observation(images, np.zeros((1, self.bridge.state_size), np.float32), ("do nothing",))
        batch = self.bridge.batch(obs)
        noise = torch.zeros(1, *self.noise_shape, device=self.bridge.device)
        with (
            torch.no_grad(),
            captured(self.network, self.tap, leave=False) as activations,
            recorded(self.network, self.family.vision) as outputs,
        ):
            chunk = self.family.run(Request(batch, noise, row_generators(noise.cpu().numpy(), self.bridge.device)))
        words = int(getattr(self.network.config, "tokenizer_max_length", 0))
        self.packing = Packing.of(outputs, batch, tuple(self.bridge.images), self.history, words)
        expected = (1, self.family.horizon, action.size)
        if tuple(chunk.shape) != expected:
            raise CheckpointError(
                f"'{name}' gives chunks of {list(chunk.shape[1:])} and its configuration says {list(expected[1:])} "
                "(steps, action entries): configuration and weights are not of one checkpoint"
            )
        most = max(len(self.network.config.image_features), 1)
        if not 1 <= len(activations) <= most:
            raise CheckpointError(
                f"tap '{self.tap.name}' runs {len(activations)} times in a pass, expected 1 to {most}: it is inside "
                f"the sampler or not used, choose one of {', '.join(self.family.taps)}"
            )
        self.tap = replace(self.tap, calls=len(activations))
        seen = pool(activations, self.tap, 1)
        width = int(seen.shape[1])
        if width > KEY_SIZE:
            drawn = stream(0, "lerobot key", width).standard_normal((width, KEY_SIZE)) / np.sqrt(KEY_SIZE)
            self._projection = torch.from_numpy(drawn.astype(np.float32)).to(self.bridge.device)
        usual = self.injection == next(iter(self.family.points))
        self.spec = PolicySpec(
            name=f"{name}[{self.tap.name}]{'' if usual else '@' + self.injection}",
            horizon=self.family.horizon,
            feature_size=width + self.bridge.state_size,
            key_size=min(width, KEY_SIZE),
            context_size=self.family.points[self.injection].size,
            control_hz=control_hz,
            cameras=cameras,
            image_size=image_size,
            proprioception_size=self.bridge.state_size,
            action=action,
            normaliser=self.bridge.digest,
            image_sizes=() if set(sizes) <= {square} else sizes,
            state=state,
            reads_instruction=self.family.language is not None,
        )

    def tapped(self, tap: str) -> "LeRobotPolicy":
        """The same network with its feature read at another `tap`, as in the option of that name.

        Raises CheckpointError for a tap that the network does not have.
        """
        place = parse_tap(tap, self.family.taps, self.network)
        other = replace(self, tap=place)
        spec = self.spec
        name = spec.name.partition("[")[0]
        other.describe(name, spec.control_hz, spec.action, spec.image_size, spec.cameras, spec.state)
        return other

    @property
    def network(self) -> Any:
        """lerobot's policy object."""
        return self.family.network

    def encode(self, obs: Observation) -> Encoding:
        """z and key, read at the tap when they are first asked for; raises ValueError for cameras that do not match."""
        inputs = Inputs(obs, self.bridge.batch(obs))
        return TapEncoding(lambda: self._read(inputs), inputs)

    def sample(
        self, encoding: Encoding, noise: Float[NDArray[Any], "B H A"], proposal: Proposal | None = None
    ) -> Float[NDArray[Any], "B H A"]:
        """The chunk that the frozen sampler makes of `noise`, steered where a row's proposal has weight.

        Raises ValueError for noise or a proposal of another shape.
        """
        inputs: Inputs = encoding.context
        rows = len(inputs.observation.instruction)
        sizes = ((rows, self.spec.horizon, self.spec.action.size), (rows, *self.noise_shape))
        if noise.shape not in sizes:
            raise ValueError(f"noise is {list(noise.shape)}, expected {list(sizes[0])} or {list(sizes[1])}")
        wide = widen(np.asarray(noise, np.float32), self.noise_shape, self.family.first)
        steer, residual = None, None
        if proposal is not None:
            steer, residual = self._steer(proposal, inputs.observation)
        device = self.bridge.device
        x = torch.from_numpy(np.array(wide)).to(device)
        request = Request(inputs.batch, x, row_generators(wide, device), steer, self._guidance)
        wanted = isinstance(encoding, TapEncoding) and not encoding.made and residual is None
        point = self.family.points[self.injection]
        with (
            torch.no_grad(),
            replayed(self.network, self.family.vision, inputs.seen),
            injected(self.network, point, residual, inputs.batch),
        ):
            if wanted:
                with captured(self.network, self.tap, leave=False) as activations:
                    actions = self.family.run(request)
                if isinstance(encoding, TapEncoding) and len(activations) == self.tap.calls:
                    encoding.fill(self._features(activations, inputs.batch))
            else:
                actions = self.family.run(request)
        return self.bridge.unnormalise(actions, inputs.observation)

    def context_of(self, instruction: list[str]) -> Float[NDArray[Any], "B C"]:
        """What the memory is told of each sentence.

        What it becomes in the network, its vector or the mean over its tokens; projected at random where a context
        enters elsewhere, which keeps angles; zeros in a network without an instruction.
        """
        language = self.family.language
        size = self.spec.context_size
        if language is None:
            return np.zeros((len(instruction), size), np.float32)
        known = self._contexts = self._contexts if len(self._contexts) < _SENTENCES else {}
        for sentence in dict.fromkeys(instruction):
            if sentence not in known:
                prompt = self.bridge.prompt([sentence])
                module = self.network.get_submodule(language.module)
                with torch.no_grad():
                    if language.by_token:
                        words = module(prompt[TOKENS]).float()
                        mask = prompt[MASK].float().unsqueeze(-1)
                        vector = (words * mask).sum(1) / mask.sum(1).clamp(min=1)
                    else:
                        vector = module(prompt[TOKENS], prompt[MASK]).float()
                known[sentence] = np.asarray(vector[0].cpu().numpy())
        found = np.stack([known[s] for s in instruction])
        if self.injection == SENTENCE:
            return found
        drawn = stream(0, "lerobot context", found.shape[1], size).standard_normal((found.shape[1], size))
        projected: np.ndarray = (found @ (drawn / np.sqrt(found.shape[1]))).astype(np.float32)
        return projected

    @property
    def packed_size(self) -> int:
        """N, numbers of a packed row of conditioning."""
        return self.packing.size

    def pack(self, encoding: Encoding) -> Float[NDArray[Any], "B N"]:
        """What `sample` reads of an observation, as float16: what the network's vision puts out, state and tokens."""
        inputs = imitation.seen_by(self.family, self.packing, encoding.context)
        newest = inputs.observation.moments[-1].proprioception
        return self.packing.pack(inputs.seen, inputs.batch, newest)

    def unpack(
        self, packed: Float[NDArray[Any], "B N"], z: Float[NDArray[Any], "B D"], context: Float[NDArray[Any], "B C"]
    ) -> Encoding:
        """The encoding of packed rows, with the tokens that were packed; its key is not known, and 0.

        Raises ValueError for rows of another size.
        """
        seen, batch, proprioception = self.packing.unpack(packed, self.bridge.device)
        inputs = Inputs(Observation({}, proprioception, ("",) * len(packed)), batch, seen)
        return Encoding(np.asarray(z, np.float32), np.zeros((len(packed), self.spec.key_size), np.float32), inputs)

    def draw(self, encoding: Encoding, samples: int, rng: np.random.Generator) -> Float[NDArray[np.float32], "B S H A"]:
        """`samples` chunks of the bare policy for each row, under what the network draws; see `DrawsChunks`."""
        inputs = imitation.seen_by(self.family, self.packing, encoding.context)
        return imitation.draw(self, self.family, inputs, samples, rng)

    def imitation_gradient(
        self,
        encoding: Encoding,
        chunk: Float[NDArray[Any], "B H A"],
        residual: Float[NDArray[Any], "B C"],
        rng: np.random.Generator,
    ) -> tuple[Float[NDArray[Any], "B"], Float[NDArray[Any], "B C"]]:
        """Loss of each demonstrated chunk under a residual, and its gradient by it; see `Teachable`."""
        teacher = imitation.Teacher(self.family, self.bridge, self.family.points[self.injection], self.spec)
        return teacher.gradient(encoding.context, chunk, residual, rng)

    @contextmanager
    def guided(self, **guidance: Any) -> Iterator[None]:
        """Passes lerobot's real-time-chunking arguments to every `sample` inside the block."""
        kept, self._guidance = self._guidance, guidance
        try:
            yield
        finally:
            self._guidance = kept

    def _read(self, inputs: Inputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = len(inputs.observation.instruction)
        noise = torch.zeros(rows, *self.noise_shape, device=self.bridge.device)
        with torch.no_grad():
            activations = read(self.network, self.tap, lambda: self.family.run(Request(inputs.batch, noise)))
        return self._features(activations, inputs.batch)

    def _features(
        self, activations: list[Tensor], batch: dict[str, Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = len(batch["task"])
        seen = pool(activations, self.tap, rows)
        parts = [seen]
        if self.bridge.state_size:
            state = batch[STATE]
            parts.append((state[:, -1] if state.ndim == 3 else state).float())
        key = seen if self._projection is None else seen @ self._projection
        length = key.norm(dim=1, keepdim=True)
        unit = torch.zeros_like(key)
        unit[:, 0] = 1.0
        key = torch.where(length > 1e-12, key / length.clamp(min=1e-12), unit)
        return torch.cat(parts, 1).cpu().numpy(), key.cpu().numpy()

    def _steer(self, proposal: Proposal, obs: Observation) -> tuple[Steer | None, Tensor | None]:
        """The prior and the residual on the conditioning of a proposal; None for what no row is given."""
        spec, device = self.spec, self.bridge.device
        proposal.check(len(obs), (spec.horizon, spec.action.size), spec.context_size)
        steer, residual = None, None
        if proposal.chunk is not None and proposal.chunk_weight.any():
            weight = np.asarray(proposal.chunk_weight, np.float32)
            prior = place(self.bridge.normalise(proposal.chunk, obs), self.noise_shape, self.family.first)
            share = torch.from_numpy(1 - start_time(weight, self.lowest_start)).to(device)
            steer = Steer(prior, share, torch.from_numpy(weight).to(device))
        if proposal.context is not None and proposal.context_weight.any():
            weight = np.asarray(proposal.context_weight, np.float32)
            residual = torch.from_numpy(weight[:, None] * np.asarray(proposal.context, np.float32)).to(device)
        return steer, residual

    def _size_of(self, camera: str, fallback: tuple[int, int]) -> tuple[int, int]:
        key = next(key for key, name in self.bridge.images.items() if name == camera)
        shape = self.network.config.image_features[key].shape
        return (int(shape[1]), int(shape[2])) if len(shape) == 3 else fallback
