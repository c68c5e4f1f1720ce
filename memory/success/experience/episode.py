"""What is stored: episodes whose outcome was verified, cut into segments."""

import math
import zlib
from collections.abc import Buffer
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from vlamem.memory.success.experience.layout import EntryError, Layout

Outcome = Literal["success", "failure"]


def checksum_of(identity: str, tick: int, progress: float, *arrays: Buffer) -> int:
    """CRC-32 of a segment of which the arrays (key, proprioception, chunk; float32) are given as they lie."""
    crc = zlib.crc32(f"{identity}/{tick}/{progress!r}".encode())
    for array in arrays:
        crc = zlib.crc32(array, crc)
    return crc


def head_checksum(*entries: object) -> int:
    """CRC-32 of an episode's identity, instruction, outcome, verifier, confidence and time, in this order."""
    return zlib.crc32(repr(entries).encode())


@dataclass(frozen=True)
class Segment:
    """A state and what was done from it.

    Attributes:
        tick: control step of the episode at which the segment begins.
        progress: of the episode at that tick, 0 to 1.
        key: [K], unit length, float32.
        proprioception: [P], float32.
        chunk: [H, A], executed actions in the policy's normalised action space, float32.
    """

    tick: int
    progress: float
    key: Float[np.ndarray, "K"]
    proprioception: Float[np.ndarray, "P"]
    chunk: Float[np.ndarray, "H A"]

    def checksum(self, identity: str) -> int:
        """CRC-32 of everything in the segment and of the episode that it belongs to."""
        arrays = (np.ascontiguousarray(x, np.float32) for x in (self.key, self.proprioception, self.chunk))
        return checksum_of(identity, self.tick, self.progress, *arrays)


@dataclass(frozen=True)
class Episode:
    """A verified episode: the prefix up to the progress peak of a success, or what preceded a failure.

    Attributes:
        identity: unique name; storing the same one twice stores it once.
        instruction: of the episode.
        outcome: as verified.
        verifier: its name.
        confidence: of the verifier, 0 to 1.
        made: time of the episode [s since 1970].
        segments: in order.
        meaning: [C], the policy's vector of the instruction, by which paraphrases are recognised; or None.
    """

    identity: str
    instruction: str
    outcome: Outcome
    verifier: str
    confidence: float
    made: float
    segments: tuple[Segment, ...]
    meaning: Float[np.ndarray, "C"] | None = None

    def check(self, layout: Layout) -> None:
        """Raises EntryError naming the first thing in the episode that may not be stored."""
        for name in ("identity", "instruction", "outcome", "verifier"):
            _check_text(name, getattr(self, name))
        for name in ("confidence", "made"):
            _check_real(name, getattr(self, name))
        if self.meaning is not None and not np.isfinite(np.asarray(self.meaning)).all():
            raise EntryError(f"the vector of {self.instruction[:80]!r} has entries that are not finite")
        if not self.identity or not self.instruction.strip():
            raise EntryError("an episode needs an identity and an instruction: give both when recording begins")
        if self.outcome not in ("success", "failure") or not self.verifier:
            raise EntryError(
                f"outcome {self.outcome!r} by verifier {self.verifier!r}: only verified successes and failures are kept"
            )
        if not 0 <= self.confidence <= 1:
            raise EntryError(f"confidence {self.confidence} of verifier '{self.verifier}' is outside 0 to 1")
        if not self.segments:
            raise EntryError(f"episode '{self.identity}' has no segments: it ended before the policy was asked")
        for i, segment in enumerate(self.segments):
            try:
                _check_real("progress", segment.progress)
                if not isinstance(segment.tick, int) or not 0 <= segment.tick < 1 << 62:
                    raise EntryError(f"tick {segment.tick!r}: expected a whole number from 0 on")
                if not 0 <= segment.progress <= 1:
                    raise EntryError(f"progress {segment.progress} is outside 0 to 1")
                layout.check_key(segment.key)
                layout.check_proprioception(segment.proprioception)
                layout.check_chunk(segment.chunk)
            except EntryError as error:
                raise EntryError(f"episode '{self.identity}', segment {i}: {error}") from error


def _check_text(name: str, value: object) -> None:
    """Raises EntryError for what a database does not take as text: another type, half of a surrogate pair."""
    if not isinstance(value, str):
        raise EntryError(f"{name} is a {type(value).__name__}: expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise EntryError(f"{name} {value[:40]!r} is no text ({error.reason})") from error


def _check_real(name: str, value: object) -> None:
    """Raises EntryError for what a database does not take as a number, a NumPy scalar of single precision included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EntryError(f"{name} is {value!r} ({type(value).__name__}): expected a finite number, float({name})")
