"""What of a gymnasium environment's observations and infos a policy sees and a rollout counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vlamem.core.images import ImageError, rgb
from vlamem.core.observation import by_key

RENDERED = "render()"
"""The key of a camera whose image is what the environment's `render` gives, drawn when a policy wants it."""
WHOLE = "observation"
"""The key of an observation that is no dictionary."""
SUCCESS_KEYS = ("is_success", "success")
"""Keys of an info that say whether the task is done, where none is named."""


class GymSuiteError(ValueError):
    """An environment that is not as `suite_from_gym` was told; the message names the key, what is there and what was
    expected."""


def _entries(observation: Any) -> dict[str, Any]:
    return by_key(observation) if isinstance(observation, Mapping) else {WHOLE: observation}


def _entry(found: Mapping[str, Any], key: str, what: str, where: str) -> Any:
    if key not in found:
        raise GymSuiteError(f"{what}: the {where} has no key '{key}', it has {', '.join(map(str, found)) or 'none'}")
    return found[key]


@dataclass(frozen=True)
class GymView:
    """Which key is what.

    Attributes:
        cameras: camera by key of the observation, or by RENDERED.
        proprioception: keys whose numbers are concatenated, in this order.
        instruction: a sentence, or a function from the environment to the sentence of this moment.
        instruction_key: key of the sentence in the observation or the info; used where it is not empty.
        success: key of the info, or a function from the info; None for the first of SUCCESS_KEYS that is there.
    """

    cameras: Mapping[str, str]
    proprioception: tuple[str, ...]
    instruction: str | Callable[[Any], str]
    instruction_key: str
    success: str | Callable[[Mapping[str, Any]], bool] | None

    def images(self, env: Any, observation: Any) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
        """The image of each camera, a copy. Raises GymSuiteError for what is no image."""
        entries, found = _entries(observation), {}
        for key, camera in self.cameras.items():
            what = f"camera '{camera}'"
            given = env.render() if key == RENDERED else _entry(entries, key, what, "observation")
            if given is None:
                raise GymSuiteError(
                    f"{what}: render() gives nothing, make the environment with render_mode='rgb_array'"
                )
            try:
                image = rgb(given, f"{what} (key '{key}')")
            except ImageError as error:
                raise GymSuiteError(str(error)) from error
            if image.ndim != 3:
                raise GymSuiteError(
                    f"{what} (key '{key}') is {image.dtype} {list(image.shape)}: expected one image, [H, W, 3]"
                )
            found[camera] = np.array(image)  # environments may draw the next one into the same memory
        return found

    def state(self, observation: Any) -> Float[np.ndarray, "P"]:
        """The proprioception, float32. Raises GymSuiteError for entries that are no finite numbers."""
        entries, parts = _entries(observation), [np.zeros(0, np.float32)]
        for key in self.proprioception:
            values = np.asarray(_entry(entries, key, "proprioception", "observation"))
            if values.dtype.kind not in "biuf":
                raise GymSuiteError(
                    f"proprioception (key '{key}') is {values.dtype} {list(values.shape)}: expected numbers"
                )
            if not np.isfinite(values).all():
                raise GymSuiteError(f"proprioception (key '{key}') is not finite: {values.ravel().tolist()}")
            parts.append(values.astype(np.float32).ravel())
        return np.concatenate(parts)

    def sentence(self, env: Any, observation: Any, info: Mapping[str, Any]) -> str:
        """The instruction of this moment. Raises GymSuiteError for what is no sentence."""
        if self.instruction_key:
            both = {**info, **_entries(observation)}
            text = _entry(both, self.instruction_key, "instruction", "observation and its info")
        else:
            text = self.instruction if isinstance(self.instruction, str) else self.instruction(env)
        if not isinstance(text, str) or not text.strip():
            raise GymSuiteError(f"the instruction is {text!r}: expected a sentence")
        return str(text)

    def succeeded(self, info: Mapping[str, Any], ended: bool) -> bool:
        """Whether the task is done. An info may be silent about it until the episode has ended; GymSuiteError then."""
        if callable(self.success):
            return _truth(self.success(info), "what success() gives")
        names = SUCCESS_KEYS if self.success is None else (self.success,)
        key = next((name for name in names if name in info), None)
        if key is not None:
            return _truth(info[key], f"info['{key}']")
        if ended:
            raise GymSuiteError(
                f"success: the info at the end of an episode has no key {' or '.join(map(repr, names))}, it has "
                f"{', '.join(info) or 'none'}: name the one to read with success="
            )
        return False


def _truth(value: Any, what: str) -> bool:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise GymSuiteError(f"{what} is {array.dtype} {list(array.shape)}: expected one true or false")
    return bool(array.item())
