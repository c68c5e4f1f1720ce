"""Frames of an episode's cameras, evenly spread over it, though nobody knows beforehand how long it lasts."""

import io
from typing import Any

import numpy as np

from vlamem.core.observation import Observation

TILES = 12
"""Frames of a strip."""
_WIDTH = 96
"""Of a frame in a strip [pixels]."""
_QUALITY = 75
_LAST_WIDTH = 168
Array = np.ndarray[Any, Any]


class FilmStrip:
    """Keeps TILES to 2 TILES small frames: of every step at first, of every second, fourth, ... as there are more."""

    def __init__(self) -> None:
        self._every = 1
        self._kept: list[tuple[int, Array]] = []
        self._newest: tuple[int, Observation] | None = None

    def seen(self, step: int, obs: Observation) -> None:
        """The observation, of one row, at a step; steps count up by one."""
        self._newest = step, obs
        if step % self._every:
            return
        if len(self._kept) == 2 * TILES:
            self._every *= 2
            self._kept = [(at, frame) for at, frame in self._kept if at % self._every == 0]
            if step % self._every:
                return
        self._kept.append((step, _frame(obs, _WIDTH)))

    def strip(self) -> bytes | None:
        """TILES frames side by side as a JPEG image, cameras below each other; None where nothing was seen."""
        if self._newest is None or not self._kept:
            return None
        steps = self._newest[0] + 1
        wanted = [(tile + 0.5) * steps / TILES for tile in range(TILES)]
        frames = [min(self._kept, key=lambda kept: abs(kept[0] + 0.5 - at))[1] for at in wanted]
        return _jpeg(np.concatenate(frames, axis=1))

    def last(self) -> bytes:
        """The newest frame as a JPEG image, cameras side by side. Raises ValueError where nothing was seen."""
        if self._newest is None:
            raise ValueError("no observation has been seen: there is no last frame")
        return _jpeg(_frame(self._newest[1], _LAST_WIDTH, below=False))


def _frame(obs: Observation, width: int, below: bool = True) -> Array:
    """The images of a row, each `width` pixels wide, below each other or side by side."""
    from PIL import Image

    found = []
    for images in obs.moments[-1].images.values():
        image = Image.fromarray(np.asarray(images[0]))
        height = max(1, round(width * image.height / image.width))
        found.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    if not below:
        most = max(len(image) for image in found)
        found = [np.pad(image, ((0, most - len(image)), (0, 0), (0, 0))) for image in found]
    return np.concatenate(found, axis=0 if below else 1)


def _jpeg(image: Array) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
