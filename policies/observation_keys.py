"""Observations as others' libraries give them, dictionaries, read by the names that a policy's spec asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from vlamem.core.images import ImageError, rgb
from vlamem.core.observation import Observation, by_key
from vlamem.core.spec import PolicySpec

_IMAGES = (
    "{}", "images/{}", "pixels/{}", "observation/{}", "observation/images/{}", "observation.images.{}",
    "observation.image.{}",
)  # fmt: skip
_ONE_IMAGE = ("pixels", "image", "observation/image", "observation.image")
"""Keys of an image without a camera's name: that of a policy that reads one, where there is no other image."""
_PROPRIOCEPTION = ("proprioception", "state", "states", "agent_pos", "observation/state", "observation.state")
_INSTRUCTION = ("instruction", "prompt", "task", "task_description", "language_instruction")

Keys = dict[str, list[str]]
"""Where an entry is looked for, by the policy's name of it: a camera, "proprioception" or "instruction"."""


class ObservationError(ValueError):
    """An observation that this policy cannot see; the message names the entry, what was expected and what came."""


def keys_of(spec: PolicySpec, rename: Mapping[str, str]) -> Keys:
    """Keys of gymnasium, lerobot, openpi and vla-eval for all that a policy reads, those of `rename` first.

    Raises ValueError for a rename to something that the policy does not read.
    """
    keys = {camera: [form.format(camera) for form in _IMAGES] for camera in spec.cameras}
    keys |= {"proprioception": list(_PROPRIOCEPTION), "instruction": list(_INSTRUCTION)}
    for theirs, ours in rename.items():
        if ours not in keys:
            raise ValueError(f"rename {theirs}={ours}: this policy reads {', '.join(keys)}")
        keys[ours].insert(0, theirs)
    return keys


def find(entries: Mapping[str, Any], keys: Keys, name: str, mend: str) -> Any:
    """The entry that a policy calls `name`. Raises ObservationError, with `mend`, where there is none."""
    for candidate in keys[name]:
        if candidate in entries:
            return entries[candidate]
    raise ObservationError(
        f"the observation has no '{name}' (looked for {', '.join(keys[name])}); it has "
        f"{', '.join(sorted(entries)[:12]) or 'nothing'}: {mend}"
    )


class DictionaryReader:
    """Makes Observations of dictionaries: arrays or tensors, with or without an axis for the rows.

    Images are uint8 [H, W, 3] or channels first, or floating point from 0 to 1. Values are taken as they are: a state
    that means something else is not converted.
    """

    def __init__(
        self, spec: PolicySpec, rename: Mapping[str, str] | None = None, instruction: str | None = None
    ) -> None:
        """Keys are those of `keys_of`; several that are renamed to "proprioception" are concatenated in their order.

        `instruction` is the sentence of observations without one. Raises ValueError for a rename to something that the
        policy does not read.
        """
        self._spec, self._instruction = spec, instruction
        self._keys = keys_of(spec, rename or {})
        self._parts = [theirs for theirs, ours in (rename or {}).items() if ours == "proprioception"]

    def read(self, given: Mapping[str, Any], rows: int) -> tuple[Observation, bool]:
        """The observation of `rows`, and whether `given` had no axis for them, which one row may leave out.

        Raises ObservationError for what is missing, of another type or number of axes, not finite, or of other rows.
        """
        entries = by_key(given)
        images = {camera: self._image(entries, camera) for camera in self._spec.cameras}
        body = self._proprioception(entries)
        axes = {name: image.ndim - 3 for name, image in images.items()}
        if body is not None:
            axes["proprioception"] = body.ndim - 1
        single = not any(axes.values())
        odd = next((name for name, axis in axes.items() if axis != (not single)), None)
        if odd is not None:
            raise ObservationError(f"axes before those of one row are {axes}: expected none, or one in every entry")
        if single:
            images = {name: image[None] for name, image in images.items()}
            body = None if body is None else body[None]
        if body is None:
            body = np.zeros((rows, 0), np.float32)
        for name, array in (*images.items(), ("proprioception", body)):
            if len(array) != rows:
                raise ObservationError(f"'{name}' has {len(array)} rows: expected {rows}")
        return Observation(images, body, self._sentences(entries, rows)), single

    def _find(self, entries: Mapping[str, Any], name: str) -> Any:
        return _array(find(entries, self._keys, name, f"give wrap rename={{'THEIRS': '{name}'}}"))

    def _image(self, entries: Mapping[str, Any], camera: str) -> np.ndarray:
        if len(self._spec.cameras) == 1 and not any(key in entries for key in self._keys[camera]):
            images = [key for key, value in entries.items() if len(getattr(value, "shape", ())) >= 3]
            if len(images) == 1 and images[0] in _ONE_IMAGE:  # with another beside it, it might be the wrong one
                entries = {camera: entries[images[0]]}
        try:
            image = rgb(self._find(entries, camera), f"image '{camera}'")
        except ImageError as error:
            raise ObservationError(str(error)) from error
        if image.ndim > 4:
            raise ObservationError(f"image '{camera}' is {list(image.shape)}: expected [H, W, 3], or one axis before")
        return image

    def _proprioception(self, entries: Mapping[str, Any]) -> Float[np.ndarray, "*rows P"] | None:
        size = self._spec.proprioception_size
        if size == 0:
            return None
        if len(self._parts) > 1:
            missing = [key for key in self._parts if key not in entries]
            if missing:
                raise ObservationError(f"the observation has no '{missing[0]}', a part of the proprioception")
            given = [_array(entries[key]) for key in self._parts]
        else:
            given = [self._find(entries, "proprioception")]
        try:
            values = np.concatenate([np.asarray(part, np.float32) for part in given], axis=-1)
        except (TypeError, ValueError) as error:
            raise ObservationError(f"proprioception is no array of numbers ({error}): expected [{size}]") from error
        if values.ndim not in (1, 2) or values.shape[-1] != size:
            raise ObservationError(f"proprioception is {list(values.shape)}: expected [{size}], or [B, {size}]")
        if not np.isfinite(values).all():
            raise ObservationError(f"proprioception {values.tolist()} is not finite: mend the sensor")
        return values

    def _sentences(self, entries: Mapping[str, Any], rows: int) -> tuple[str, ...]:
        known = any(key in entries for key in self._keys["instruction"])
        if not known and (self._instruction is not None or not self._spec.reads_instruction):
            return (self._instruction or "",) * rows
        given = find(entries, self._keys, "instruction", "give wrap instruction='...'")
        sentences = (given,) * rows if isinstance(given, str) else given
        if not isinstance(sentences, Sequence | np.ndarray) or not all(isinstance(text, str) for text in sentences):
            raise ObservationError(f"the instruction is {str(given)[:40]!r}: expected a sentence, or one a row")
        if len(sentences) != rows:
            raise ObservationError(f"the instruction has {len(sentences)} rows: expected {rows}")
        return tuple(str(text) for text in sentences)


def _array(value: Any) -> Any:
    """A tensor as an array, from whatever device; everything else as it is."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value
