"""Between this project's observations and a checkpoint's own processors: batches in, actions out, and their hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vlamem.core.observation import Observation
from vlamem.policies.lerobot.source import LEFT_OUT, CheckpointError, camera_of

STATE, ACTION, TASK = "observation.state", "action", "task"
_NOT_NORMALISATION = ("device", "tokenizer_name", "action_tokenizer_name", "float_dtype")


@dataclass(frozen=True)
class Bridge:
    """A checkpoint's pre- and post-processor.

    Attributes:
        preprocessor, postprocessor: lerobot's pipelines, as loaded.
        images: the environment's camera by the network's image key; several keys may read one camera.
        state_size: P.
        history: observations that the network reads, the newest last.
        device: where the network is.
        sizes: height and width by image key, of keys whose pictures the network takes in that size alone.
    """

    preprocessor: Any
    postprocessor: Any
    images: dict[str, str]
    state_size: int
    history: int
    device: str
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def batch(self, obs: Observation, gathers: bool = False) -> dict[str, Any]:
        """The network's input for an observation, rows in its order.

        Images are uint8 [B, H, W, 3], or [B, history, H, W, 3] for networks that read several; one image is repeated,
        as lerobot does when an episode begins, unless the network `gathers` observations itself. Raises ValueError
        naming both lists when cameras do not match, and for proprioception or pictures of another size.
        """
        if gathers and self.history > 1:
            return replace(self, history=1).batch(obs)
        rows = len(obs.instruction)
        missing = [name for name in self.cameras if name not in obs.images]
        if missing:
            raise ValueError(
                f"no image for {', '.join(missing)}: the checkpoint reads cameras {sorted(self.cameras)}, the "
                f"observation has {sorted(obs.images)}: name the ones that are meant, e.g. "
                f"?camera.{missing[0]}=OTHER after the checkpoint (=none leaves it out, where its family can)"
            )
        raw: dict[str, Any] = {TASK: list(obs.instruction)}
        if self.state_size:
            raw[STATE] = torch.from_numpy(self._state(np.array(obs.proprioception, np.float32), rows))
        for key, name in self.images.items():
            raw[key] = self._image(name, obs.images[name], rows)
        made = self._preprocess(raw)
        for key, size in self.sizes.items():
            given = tuple(raw[key].shape[-2:])
            if size not in (given, tuple(made[key].shape[-2:])):  # as it is, or as the preprocessor makes it
                raise ValueError(
                    f"camera {self.images[key]!r} gives {given[0]} x {given[1]} pixels, the checkpoint was trained on "
                    f"{size[0]} x {size[1]} and does not scale: have pictures made in this size (--size, --env.size, "
                    "--robot.size)"
                )
        return made

    def prompt(self, instruction: list[str]) -> dict[str, Any]:
        """The tokens of each sentence, with a state of zeros where the prompt has one."""
        raw: dict[str, Any] = {TASK: instruction}
        if self.state_size:
            raw[STATE] = torch.zeros(len(instruction), self.state_size)
        return self._preprocess(raw)

    def normalise(self, chunk: Float[NDArray[Any], "B H A"], obs: Observation) -> Tensor:
        """[B, H, A] actions of the environment in the network's units."""
        raw = self._stateful(obs) | {ACTION: torch.from_numpy(np.array(chunk, np.float32))}
        return torch.as_tensor(self._preprocess(raw)[ACTION], device=self.device)

    def unnormalise(self, actions: Tensor, obs: Observation) -> Float[NDArray[np.float32], "B H A"]:
        """What the environment takes, from [B, H, A] of the network; relative actions are relative to `obs`."""
        self._preprocess(self._stateful(obs))  # relative actions read the state that the preprocessor saw last
        return np.asarray(self.postprocessor(actions).to(torch.float32).cpu().numpy())

    @property
    def cameras(self) -> tuple[str, ...]:
        """The environment's cameras that are read, each once."""
        return tuple(dict.fromkeys(self.images.values()))

    @property
    def digest(self) -> str:
        """Hash of all that changes numbers on the way in or out: 16 hexadecimal digits."""
        found = hashlib.sha256()
        for pipeline in (self.preprocessor, self.postprocessor):
            for step in pipeline.steps:
                config = {k: v for k, v in step.get_config().items() if k not in _NOT_NORMALISATION}
                found.update(json.dumps([type(step).__name__, config], sort_keys=True, default=str).encode())
                for name, tensor in sorted(step.state_dict().items()):
                    found.update(name.encode() + tensor.detach().to("cpu", torch.float32).numpy().tobytes())
        return found.hexdigest()[:16]

    def _preprocess(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        batch: dict[str, Any] = self.preprocessor(dict(raw))
        return batch

    def _stateful(self, obs: Observation) -> dict[str, Any]:
        raw: dict[str, Any] = {TASK: list(obs.instruction)}
        if self.state_size:
            state = self._state(np.array(obs.proprioception, np.float32), len(obs.instruction))
            raw[STATE] = torch.from_numpy(state if state.ndim == 2 else state[:, -1])
        return raw

    def _state(self, raw: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        shapes = ((rows, self.state_size), (rows, self.history, self.state_size))
        if raw.shape not in shapes:
            raise ValueError(
                f"proprioception is {list(raw.shape)}, the checkpoint reads [{rows}, {self.state_size}]"
                + (f" or [{rows}, {self.history}, {self.state_size}]" if self.history > 1 else "")
                + ": choose a checkpoint that was trained on this robot"
            )
        if self.history > 1 and raw.ndim == 2:
            return np.repeat(raw[:, None], self.history, axis=1)
        return raw[:, -1] if self.history == 1 and raw.ndim == 3 else raw

    def _image(self, name: str, image: NDArray[np.uint8], rows: int) -> Tensor:
        fits = image.ndim == 4 or (image.ndim == 5 and image.shape[1] == self.history)
        if image.dtype != np.uint8 or not fits or len(image) != rows or image.shape[-1] != 3:
            raise ValueError(
                f"camera {name!r} gives {image.dtype} {list(image.shape)}, expected uint8 [{rows}, H, W, 3]"
            )
        moved = np.ascontiguousarray(np.moveaxis(image, -1, -3))
        tensor = torch.from_numpy(moved).type(torch.float32) / 255.0
        if self.history > 1 and tensor.ndim == 4:
            return tensor.unsqueeze(1).expand(-1, self.history, -1, -1, -1).contiguous()
        return tensor[:, -1] if self.history == 1 and tensor.ndim == 5 else tensor


def image_keys(config: Any, cameras: Mapping[str, str]) -> dict[str, str]:
    """The environment's camera by the network's image key.

    `cameras` says which camera of the environment a key's last part stands for, where the two differ, or "none" where
    it is left out. Raises CheckpointError naming both lists when it says so of a key that the checkpoint has not, and
    for a checkpoint of which all are left out.
    """
    own = {camera_of(key): key for key in config.image_features if "empty_camera" not in key}
    unknown = [name for name in cameras if name not in own]
    if unknown:
        raise CheckpointError(
            f"the checkpoint has no image {unknown[0]!r} to be read from camera {cameras[unknown[0]]!r}: it reads "
            f"{sorted(own)}, given were {sorted(cameras)}"
        )
    read = {key: cameras.get(name, name) for name, key in own.items() if cameras.get(name) != LEFT_OUT}
    if not read:
        raise CheckpointError(f"every camera of {sorted(own)} is left out: the checkpoint reads one at least")
    return read
