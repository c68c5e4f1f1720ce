"""What a run leaves on disk while it goes on: a line per episode, and videos."""

import errno
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from vlamem.core.checksums import sealed, unsealed
from vlamem.core.files import replacing
from vlamem.core.jsonl import JsonLog, LineError, read_lines

Outcome = Literal["success", "failure", "error", "unlabelled"]


class RecordError(ValueError):
    """A line of episodes.jsonl that is no episode; the message names file and line."""


class DiskFullError(OSError):
    """The disk is full; what was recorded before is whole."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode.

    Attributes:
        arm: memory that was used, "none" without one.
        task, split, episode, seed: what the episode is.
        outcome: "error" when the environment or its process broke, which says nothing about the policy; "unlabelled"
            where nobody has judged what a robot did.
        initial_state: names the state that the episode began in, equal in runs that can be paired.
        instruction: the policy's instruction.
        steps: control steps carried out.
        decisions: chunks planned.
        writes, ticks: memory writes, and control steps on which a memory ticked.
        state_bytes: size of the memory's state.
        proposals: decisions at which a memory proposed something; at the others every memory abstained.
        proposed_weight: mean weight of these proposals, 0 to 1.
        verdict: of the verifier of a memory that learns from episodes: success, failure or unknown.
        segments: of successes in that memory after the episode.
        error: what broke, else None.
        strict: a second verdict beside the outcome, of suites that have one; None where there is none.
        wall_clock: seconds, and decision_ms after warm-up; differs from run to run. Episodes that are played side by
            side have equal shares of their time, and of the time of each forward pass.
    """

    arm: str
    task: str
    split: str
    episode: int
    seed: int
    outcome: Outcome
    initial_state: str
    instruction: str = ""
    steps: int = 0
    decisions: int = 0
    writes: int = 0
    ticks: int = 0
    state_bytes: int = 0
    proposals: int = 0
    proposed_weight: float = 0.0
    verdict: str = ""
    segments: int = 0
    error: str | None = None
    strict: bool | None = None
    wall_clock: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """Arm, task and episode: unique in a run."""
        return self.arm, self.task, self.episode


def disk_full(error: OSError, path: Path) -> OSError:
    """`error`, as a DiskFullError naming `path` when that is what it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            error.errno, f"the disk is full, {path.name} could not be written: make room there", str(path)
        )
    return error


class EpisodeLog:
    """Appends episodes to a file, one JSON line each, on disk before the next begin."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[EpisodeRecord]:
        """All whole lines. A last line cut short by a kill is dropped, and removed by the next append.

        Raises RecordError for any other line that is no episode.
        """
        try:
            return list(read_lines(self._path, lambda body: EpisodeRecord(**unsealed(body)), "episode of this version"))
        except LineError as error:
            raise RecordError(f"{error}: remove the line to have it run again") from error

    def append(self, *records: EpisodeRecord) -> None:
        """Adds episodes in one write and waits until they are on disk.

        Raises DiskFullError with the file as it was before; other OSErrors likewise.
        """
        try:
            with JsonLog(self._path, _line) as log:
                log.append(*records)
        except OSError as error:
            raise disk_full(error, self._path) from error


def _line(record: EpisodeRecord) -> str:
    return json.dumps(sealed(asdict(record)), ensure_ascii=False)


def video_path(run: Path, task: str, episode: int) -> Path:
    """Where an episode's video is in the folder of its run."""
    return run / "videos" / f"{task}-{episode:04d}.mp4"


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], hz: float, title: str) -> None:
    """Writes H.264 frames of one even size at `hz` frames a second; the file appears whole or not at all.

    Raises DiskFullError, or another OSError, leaving nothing behind.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as draft, av.open(str(draft), "w", format="mp4") as container:
            container.metadata["title"] = title
            stream: Any = container.add_stream("libx264", rate=Fraction(hz).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "20", "preset": "veryfast", "threads": "1"}
            for frame in frames:
                stream.height, stream.width = frame.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    except OSError as error:
        raise disk_full(error, path) from error


def side_by_side(
    images: Iterable[UInt8[np.ndarray, "H W 3"]], height: int = 336
) -> UInt8[np.ndarray, "height width 3"]:
    """Camera images next to each other, enlarged by a whole factor to about `height` pixels, sizes made even."""
    row: UInt8[np.ndarray, "height width 3"] = np.concatenate(list(images), axis=1)
    factor = max(1, round(height / row.shape[0]))
    row = row.repeat(factor, axis=0).repeat(factor, axis=1)
    return row[: row.shape[0] // 2 * 2, : row.shape[1] // 2 * 2]


def with_gate(
    image: UInt8[np.ndarray, "height width 3"], gate: float, wrote: bool, confidence: float
) -> UInt8[np.ndarray, "height width 3"]:
    """`image` with two bars at its lower edge: the gate's figure, red where the memory is written, and the confidence.

    Both are in 0 to 1, full width being 1; a written tick also has a red frame.
    """
    marked = image.copy()
    height, width = image.shape[:2]
    thick = max(2, height // 42)
    red, grey, blue = (230, 40, 30), (150, 150, 150), (50, 110, 230)
    marked[-2 * thick :] = 0
    marked[-2 * thick : -thick, : round(gate * width)] = red if wrote else grey
    marked[-thick:, : round(confidence * width)] = blue
    if wrote:
        marked[:thick] = red
        marked[: -2 * thick, :thick] = red
        marked[: -2 * thick, -thick:] = red
    return marked
