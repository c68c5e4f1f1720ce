"""From a message to what a policy sees: names of several conventions, every array checked before it meets a policy."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlamem.core.observation import Observation
from vlamem.core.spec import PolicySpec
from vlamem.policies.observation_keys import ObservationError, find, keys_of

__all__ = ["Decode", "ObservationError", "ObservationReader"]

_LONGEST_INSTRUCTION = 1000
Decode = Callable[[Any, tuple[int, int]], Any]
"""An image as it came, and the height and width that the policy reads [pixels], to an array."""


def _as_it_is(image: Any, size: tuple[int, int]) -> Any:
    return image


class ObservationReader:
    """Reads the observations that one policy needs out of messages.

    Images are looked for under a camera's own name, under `images/NAME` (or in a map `images`), `observation/NAME` and
    LeRobot's `observation.images.NAME`; proprioception and the sentence under the names that openpi, LeRobot and
    vla-eval use (`vlamem.policies.observation_keys`). `rename` adds names: {"observation/image": "agentview"}.

    Raises ValueError for a rename to something that the policy does not read.
    """

    def __init__(self, spec: PolicySpec, rename: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self._keys = keys_of(spec, rename or {})

    def read(self, message: Mapping[Any, Any], decode: Decode = _as_it_is) -> Observation:
        """One row; `decode(given, size)` makes an array of an image that this policy reads, of no other.

        Raises ObservationError for what is missing, of another size or type, or not finite, and what `decode` raises.
        """
        flat: dict[str, Any] = {}
        for key, value in message.items():
            if isinstance(key, str):
                flat[key] = value
                if isinstance(value, Mapping):
                    flat |= {f"{key}/{inner}": v for inner, v in value.items() if isinstance(inner, str)}
        images = {camera: self._image(flat, camera, decode) for camera in self.spec.cameras}
        return Observation(images, self._proprioception(flat), (self._instruction(flat),))

    def _find(self, flat: Mapping[str, Any], name: str) -> Any:
        return find(flat, self._keys, name, f"send it, or start the server with --rename THEIRS={name}")

    def _image(self, flat: Mapping[str, Any], camera: str, decode: Decode) -> np.ndarray[Any, Any]:
        size = self.spec.size_of(camera)
        image = decode(self._find(flat, camera), size)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (*size, 3):
            came = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ObservationError(f"image '{camera}' is {came}, expected uint8 {[*size, 3]}: resize it first")
        return image[None]

    def _proprioception(self, flat: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        given, size = self._find(flat, "proprioception"), self.spec.proprioception_size
        try:
            values = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise ObservationError(f"proprioception is a {type(given).__name__}, expected {size} numbers") from error
        if values.shape != (size,):
            raise ObservationError(f"proprioception is {list(values.shape)}, expected [{size}]")
        if not np.isfinite(values).all():
            raise ObservationError(f"proprioception {values.tolist()} is not finite: mend the sensor")
        return values[None]

    def _instruction(self, flat: Mapping[str, Any]) -> str:
        text = self._find(flat, "instruction")
        if not isinstance(text, str) or not 0 < len(text.strip()) <= _LONGEST_INSTRUCTION:
            raise ObservationError(
                f"the instruction is {str(text)[:40]!r}: expected 1 to {_LONGEST_INSTRUCTION} letters"
            )
        return text
