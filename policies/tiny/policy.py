"""TinyVLA as a frozen policy: two cameras, proprioception and a sentence in, action chunks out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.observation import Encoding, Observation, Rows
from vlamem.core.proposal import Proposal
from vlamem.core.spec import OSC_POSE, PolicySpec, SpecMismatchError
from vlamem.policies.steering import start_time, step_counts
from vlamem.policies.tiny import imitation
from vlamem.policies.tiny.language import Tokeniser
from vlamem.policies.tiny.model import ModelConfig, TinyNetwork, patches
from vlamem.policies.tiny.normaliser import Normaliser
from vlamem.policies.tiny.weights import WeightsError, load_weights

KIND = "tiny_policy"
CONTROL_HZ = 20.0
_SENTENCES = 256
"""Remembered at a time; who asks may invent new ones for ever."""


@dataclass(frozen=True)
class SampleOptions:
    """How chunks are drawn.

    Attributes:
        steps: Euler steps from noise (t = 1) to data (t = 0).
        lowest_start: flow time below which a proposed chunk is taken as it is; one of confidence c enters at 1 - c.
    """

    steps: int = 10
    lowest_start: float = 0.2


@dataclass(frozen=True)
class TinyContext:
    """What `TinyVLA.sample` needs beyond z: the instruction's vector and the spatial tokens, all [B, ...]."""

    instruction: Tensor
    seen: list[tuple[Tensor, Tensor]]
    z: Tensor
    proprioception: Tensor

    def rows(self, index: Rows) -> "TinyContext":
        """The part for some of its rows."""
        at = torch.as_tensor(index, dtype=torch.int64)
        seen = [(tokens[at], places[at]) for tokens, places in self.seen]
        return TinyContext(self.instruction[at], seen, self.z[at], self.proprioception[at])


def spec_of(config: ModelConfig, normaliser: Normaliser) -> PolicySpec:
    """The spec of a TinyVLA of these sizes and constants."""
    return PolicySpec(
        name="tiny",
        horizon=config.horizon,
        feature_size=config.feature,
        key_size=config.key,
        context_size=config.context,
        control_hz=CONTROL_HZ,
        cameras=config.cameras,
        image_size=config.image_size,
        proprioception_size=8,
        action=OSC_POSE,
        normaliser=normaliser.digest,
        state="pose",
    )


def images_to_network(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, S, S, 3] to the trunk's patches, -1..1, float32."""
    return patches(images).float() / 127.5 - 1.0


class TinyVLA:
    """A trained TinyVLA; satisfies FrozenPolicy. Load one with `TinyVLA.load`."""

    def __init__(
        self,
        network: TinyNetwork,
        tokeniser: Tokeniser,
        normaliser: Normaliser,
        options: SampleOptions | None = None,
        header: dict[str, Any] | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokeniser = tokeniser
        self.normaliser = normaliser
        self.options = options or SampleOptions()
        self.header = header or {}
        self.spec = spec_of(network.config, normaliser)
        self._contexts: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls, path: str | Path, options: SampleOptions | None = None, expected: PolicySpec | None = None
    ) -> "TinyVLA":
        """The policy in a weights file written by `vlamem pretrain`.

        Raises WeightsError for a damaged file, SpecMismatchError when the file's spec is not the one that this
        version gives these sizes, or is not `expected`.
        """
        tensors, header = load_weights(path, KIND)
        try:
            config = ModelConfig(**_fields(header["config"]))
            tokeniser = Tokeniser(tuple(header["vocabulary"]), config.sentence_length)
            normaliser = Normaliser(**_fields(header["normaliser"]))
            stored = header["spec"]
        except (KeyError, TypeError) as error:
            raise WeightsError(f"{path} lacks a part of its header ({error!r}): train it again") from error
        check_same_spec(stored, spec_of(config, normaliser), str(path), "this version of TinyVLA")
        if expected is not None:
            check_same_spec(stored, expected, str(path), "what it is used with")
        network = TinyNetwork(config)
        try:
            network.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in tensors.items()})
        except RuntimeError as error:
            raise WeightsError(f"{path} does not hold the tensors of its sizes: train it again ({error})") from error
        return cls(network, tokeniser, normaliser, options, header)

    @property
    def history(self) -> int:
        """Observations that the network reads at once: the present one."""
        return 1

    @property
    def lowest_start(self) -> float:
        """Flow time below which a proposed chunk is taken as it is."""
        return self.options.lowest_start

    def encode(self, obs: Observation) -> Encoding:
        """z [B, D], key [B, K] and the conditioning; raises ValueError naming a camera or size that does not fit."""
        with torch.inference_mode():
            cameras = [images_to_network(self._image(obs, c)) for c in self.spec.cameras]
            raw = np.asarray(obs.proprioception, np.float32)
            if raw.shape != (len(obs.instruction), self.spec.proprioception_size):
                raise ValueError(
                    f"proprioception is {list(raw.shape)}, expected "
                    f"[{len(obs.instruction)}, {self.spec.proprioception_size}]: position, quaternion, gripper opening"
                )
            proprioception = torch.from_numpy(self.normaliser.proprioception(raw))
            z, seen = self.network.see(cameras, proprioception)
            key = self.network.retrieval_key(z)
            context = TinyContext(self._context(list(obs.instruction)), seen, z, proprioception)
        return Encoding(z.numpy(), key.numpy(), context)

    def sample(
        self, encoding: Encoding, noise: Float[NDArray[Any], "B H A"], proposal: Proposal | None = None
    ) -> Float[NDArray[Any], "B H A"]:
        """The chunk that the flow makes of `noise`; a proposed chunk enters at flow time 1 - its weight, and below
        `lowest_start` is the chunk.

        A proposed context is added to the instruction's, multiplied by its weight. Raises ValueError for wrong shapes.
        """
        told: TinyContext = encoding.context
        rows, expected = len(encoding.z), (len(encoding.z), self.spec.horizon, self.spec.action.size)
        if noise.shape != expected:
            raise ValueError(f"noise is {list(noise.shape)}, expected {list(expected)}")
        with torch.inference_mode():
            x = torch.from_numpy(np.array(noise, np.float32))
            context, start = told.instruction, torch.ones(rows)
            if proposal is not None:
                context, x, start = self._condition(proposal, context, x)
            condition, _ = self.network.reader(context, told.seen, told.z, told.proprioception)
            count = torch.from_numpy(step_counts(start.numpy(), self.options.steps))
            spans = count.clamp(min=1)
            for left in range(int(count.max()) if rows else 0, 0, -1):
                t = start * (left / spans)
                moved = x - (start / spans)[:, None, None] * self.network.flow(x, t.clamp(max=1), condition)
                x = torch.where((left <= count)[:, None, None], moved, x)
            return np.asarray(x.clamp(-1, 1).numpy())

    def context_of(self, instruction: list[str]) -> Float[NDArray[Any], "B C"]:
        """The conditioning vector of each sentence; raises InstructionError for an empty or too long one."""
        return np.array(self._context(instruction).numpy())

    @property
    def injection(self) -> str:
        """Where `imitation_gradient` and a proposed context add their residual."""
        return imitation.INJECTION

    @property
    def packed_size(self) -> int:
        """N, numbers of a packed row of conditioning."""
        return imitation.packed_size(self.network.config)

    def pack(self, encoding: Encoding) -> Float[NDArray[Any], "B N"]:
        """What `sample` reads of an observation beside z and the instruction, as float16."""
        return imitation.pack(_conditioning(encoding.context))

    def unpack(
        self,
        packed: Float[NDArray[Any], "B N"],
        z: Float[NDArray[Any], "B D"],
        context: Float[NDArray[Any], "B C"],
    ) -> Encoding:
        """The encoding of packed rows under the vector of an instruction."""
        told = TinyContext(*imitation.unpack(self.network.config, packed, z, context))
        with torch.inference_mode():
            key = self.network.retrieval_key(told.z)
        return Encoding(told.z.numpy(), key.numpy(), told)

    def imitation_gradient(
        self,
        encoding: Encoding,
        chunk: Float[NDArray[Any], "B H A"],
        residual: Float[NDArray[Any], "B C"],
        rng: np.random.Generator,
    ) -> tuple[Float[NDArray[Any], "B"], Float[NDArray[Any], "B C"]]:
        """Flow-matching loss of a demonstrated chunk under a residual on the instruction's vector, and its gradient by
        that residual; see `vlamem.policies.tiny.imitation`."""
        return imitation.imitation_gradient(self.network, _conditioning(encoding.context), chunk, residual, rng)

    def _condition(self, proposal: Proposal, context: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Context, start of the flow and its flow time under a proposal; rows of weight 0 stay as they are."""
        spec = self.spec
        proposal.check(len(x), (spec.horizon, spec.action.size), spec.context_size)
        start = torch.ones(len(x))
        if proposal.context is not None:
            weight = torch.from_numpy(np.asarray(proposal.context_weight, np.float32))[:, None]
            residual = torch.from_numpy(np.array(proposal.context, np.float32))
            context = torch.where(weight > 0, context + weight * residual, context)
        if proposal.chunk is not None:
            chunk = torch.from_numpy(np.array(proposal.chunk, np.float32))
            start = torch.from_numpy(start_time(proposal.chunk_weight, self.options.lowest_start))
            mixed = (1 - start)[:, None, None] * chunk + start[:, None, None] * x
            x = torch.where((start < 1)[:, None, None], mixed, x)
        return context, x, start

    def _image(self, obs: Observation, camera: str) -> NDArray[np.uint8]:
        if camera not in obs.images:
            raise ValueError(f"no image of camera {camera!r}: there are {', '.join(sorted(obs.images)) or 'none'}")
        image, size = obs.images[camera], self.spec.image_size
        if image.shape != (len(obs.instruction), size, size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"camera {camera!r} gives {image.dtype} {list(image.shape)}, expected uint8 "
                f"[{len(obs.instruction)}, {size}, {size}, 3]"
            )
        return image

    def _context(self, sentences: list[str]) -> Tensor:
        """[B, C]; each sentence is encoded once, alone, so that a row never depends on its neighbours."""
        known = self._contexts = self._contexts if len(self._contexts) < _SENTENCES else {}
        with torch.inference_mode():
            for sentence in sentences:
                if sentence not in known:
                    words = torch.from_numpy(self.tokeniser([sentence]))
                    known[sentence] = self.network.language(words)[0]
            return torch.stack([known[s] for s in sentences])


def _conditioning(told: TinyContext) -> imitation.Conditioning:
    """Copies without the mark of inference mode, which autograd refuses."""
    seen = [(keys.clone(), values.clone()) for keys, values in told.seen]
    return imitation.Conditioning(told.instruction.clone(), seen, told.z.clone(), told.proprioception.clone())


def check_same_spec(stored: dict[str, Any], needed: PolicySpec, mine: str, theirs: str) -> None:
    """Raises SpecMismatchError naming the first field in which a stored spec differs from `needed`."""
    for name, value in needed.computed().items():
        plain = _plain(value)
        if _plain(stored.get(name)) != plain:
            raise SpecMismatchError(
                f"spec field {name!r} is {stored.get(name)!r} in {mine} but {plain!r} in {theirs}: use weights that "
                "were made for it, or train them with 'vlamem pretrain'"
            )


def _fields(stored: dict[str, Any]) -> dict[str, Any]:
    """Dataclass fields from JSON, where a tuple is a list."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
