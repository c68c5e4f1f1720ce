"""Pictures of an episode for a report: its video, a strip of its frames, and the last image of a failed one."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

TILES = 12
"""Frames of a strip."""
_TILE = 96
"""Height and width of a camera's image in a strip [pixels]."""
_QUALITY = 75


class FilmError(ValueError):
    """A video that cannot be read; the message names it."""


def data_uri(kind: str, data: bytes) -> str:
    """`data` as the address of itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def frames_of(path: Path) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a video. Raises FilmError where it is cut short or is none."""
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise FilmError(f"{path} cannot be read as a video ({error})") from error


def strip(path: Path) -> tuple[str, str]:
    """TILES frames of a video, evenly spread over its time and each with its cameras below each other; and the last.

    Both as data addresses of JPEG images. Raises FilmError where the video cannot be read.
    """
    frames = list(frames_of(path))
    if not frames:
        raise FilmError(f"{path} has no frames")
    chosen = [frames[int((i + 0.5) * len(frames) / TILES)] for i in range(TILES)]
    tiles = [np.concatenate(_cameras(frame)) for frame in chosen]
    return jpeg(np.concatenate(tiles, axis=1)), jpeg(np.concatenate(_cameras(frames[-1]), axis=1))


def jpeg(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """The data address of an image."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return data_uri("image/jpeg", buffer.getvalue())


def _cameras(frame: UInt8[np.ndarray, "H W 3"]) -> list[Any]:
    """The images of a frame that shows square cameras side by side, in the size of a strip."""
    from PIL import Image

    count = max(1, round(frame.shape[1] / frame.shape[0]))
    images = np.array_split(frame, count, axis=1)
    return [np.asarray(Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.BOX)) for image in images]
