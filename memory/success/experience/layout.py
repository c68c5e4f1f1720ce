"""Layout (the meaning of arrays) and origin (policy and robot): checked at each commit and at opening."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

PartKind = Literal["linear", "axis_angle", "quaternion", "vote"]
_UNIT_TOLERANCE = 1e-2
_RANGE_TOLERANCE = 1e-3


class EntryError(ValueError):
    """Invalid input to a success memory; the message names the value, what was expected and the mend."""


class OriginError(ValueError):
    """A memory of another policy, robot or normaliser; the message names both."""


@dataclass(frozen=True)
class ActionPart:
    """A run of action entries with one meaning.

    Attributes:
        name: e.g. "translation".
        size: number of entries.
        kind: how entries are averaged: "linear" (weighted mean), "axis_angle" or "quaternion" (mean on SO(3)), "vote"
            (sign by weighted vote).
        scale: radians of the value 1, for "axis_angle".
        low, high: range of each entry.
        unit: what counts as 1 between two chunks; 0 for 1 itself.
    """

    name: str
    size: int
    kind: PartKind
    scale: float = 1.0
    low: float = -1.0
    high: float = 1.0
    unit: float = 0.0


def comparable(chunks: Float[np.ndarray, "... A"], parts: Sequence[ActionPart]) -> Float[np.ndarray, "... A"]:
    """Chunks in the units in which their distance is measured, so that degrees and percents weigh alike."""
    if not any(part.unit for part in parts):
        return chunks
    return np.asarray(chunks / np.concatenate([np.full(part.size, part.unit or 1.0) for part in parts]))


@dataclass(frozen=True)
class Layout:
    """Sizes and meaning of what one policy on one robot stores.

    Attributes:
        key_size: K of the policy's retrieval key.
        horizon: H, steps of a chunk.
        parts: the action entries in order; together A.
        proprioception_scale: [P], the difference of each entry that counts as much as 1 in the similarity.
        quaternion: index of a unit quaternion (w, x, y, z) in the proprioception, or None.
    """

    key_size: int
    horizon: int
    parts: tuple[ActionPart, ...]
    proprioception_scale: tuple[float, ...]
    quaternion: int | None = None

    def __post_init__(self) -> None:
        bad = [s for s in self.proprioception_scale if not (np.isfinite(s) and s > 0)]
        if bad:
            raise EntryError(f"proprioception scale {bad[0]} is not above 0: give the difference that counts as 1")

    @cached_property
    def action_size(self) -> int:
        """A."""
        return sum(p.size for p in self.parts)

    @cached_property
    def proprioception_size(self) -> int:
        """P."""
        return len(self.proprioception_scale)

    @property
    def segment_bytes(self) -> int:
        """Bytes of the arrays of one stored segment."""
        return 4 * (self.key_size + self.proprioception_size + self.horizon * self.action_size)

    def to_json(self) -> str:
        """As stored; a unit of 0 is left out, as before there were others."""
        body = asdict(self)
        for part in body["parts"]:
            if not part["unit"]:
                del part["unit"]
        return json.dumps(body, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """What `to_json` gave. Raises EntryError for anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            raw["parts"] = tuple(ActionPart(**p) for p in raw["parts"])
            raw["proprioception_scale"] = tuple(raw["proprioception_scale"])
            return cls(**raw)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, EntryError):
                raise
            raise EntryError(f"it is no layout of a memory ({error!r})") from error

    def check_key(self, key: Float[np.ndarray, "... K"]) -> None:
        """Raises EntryError for keys of another size, not finite, or not of unit length."""
        if key.shape[-1:] != (self.key_size,):
            raise EntryError(
                f"key size {key.shape[-1] if key.ndim else 0} does not match this memory ({self.key_size}): its "
                "entries were made by another policy; open the memory with that policy, or start an empty one"
            )
        length = _lengths(key)
        if not (np.abs(length - 1) <= _UNIT_TOLERANCE).all():
            raise EntryError(f"key of length {_first_off(length, 1.0):.4g}: expected finite keys of unit length")

    def check_proprioception(self, value: Float[np.ndarray, "... P"]) -> None:
        """Raises EntryError for another size, entries that are not finite, or a quaternion that is no rotation."""
        size = self.proprioception_size
        if value.shape[-1:] != (size,):
            raise EntryError(f"proprioception is {list(value.shape)}, expected {size} entries: is it another robot's?")
        if not np.isfinite(value).all():
            raise EntryError(
                "proprioception has entries that are not finite: check the robot's state before storing it"
            )
        if self.quaternion is not None:
            _check_unit(value[..., self.quaternion : self.quaternion + 4], "proprioception")

    def check_chunk(self, chunk: Float[np.ndarray, "... H A"]) -> None:
        """Raises EntryError for another shape, NaN, entries out of range, or rotations that are no rotations."""
        if chunk.shape[-2:] != (self.horizon, self.action_size):
            raise EntryError(
                f"chunk is {list(chunk.shape)}, expected [{self.horizon}, {self.action_size}]: cut episodes into "
                "segments of the policy's chunk length"
            )
        if not np.isfinite(chunk).all():
            raise EntryError("chunk has entries that are not finite: such an episode is not stored")
        start = 0
        for part in self.parts:
            entries = chunk[..., start : start + part.size]
            start += part.size
            outside = (entries < part.low - _RANGE_TOLERANCE) | (entries > part.high + _RANGE_TOLERANCE)
            if outside.any():
                raise EntryError(
                    f"{part.name} has the entry {entries[outside][0]:.4g} outside {part.low:g} to {part.high:g}: store "
                    "actions in the policy's normalised action space, not in physical units"
                )
            if part.kind == "quaternion":
                _check_unit(entries, part.name)
            if part.kind == "axis_angle":
                angle = float(np.linalg.norm(entries * part.scale, axis=-1).max(initial=0.0))
                if angle > np.pi + _RANGE_TOLERANCE:
                    raise EntryError(
                        f"{part.name} turns by {angle:.3g} rad, an axis-angle vector by at most pi: is it another "
                        "rotation form, or degrees?"
                    )


@dataclass(frozen=True)
class Origin:
    """The policy and robot that experience comes from. Entries of different origins are never mixed.

    Attributes:
        policy: fingerprint of the policy's spec.
        weights: hash of its weights.
        normaliser: hash of its normaliser.
        robot: name of the robot, its controller and units.
    """

    policy: str
    weights: str
    normaliser: str
    robot: str

    def check(self, other: "Origin", mine: str, theirs: str) -> None:
        """Raises OriginError naming the first field that differs between two origins and what carries each."""
        mends = {
            "normaliser": "actions and states would be read in other units",
            "robot": "its chunks were made for another arm",
            "weights": "its keys come from other weights, so that similarities mean nothing",
            "policy": "keys and chunks have another meaning",
        }
        for field, why in mends.items():
            a, b = getattr(self, field), getattr(other, field)
            if a != b:
                raise OriginError(
                    f"{field} is {a!r} in {mine} but {b!r} in {theirs}: {why}; open it with what it was made with, or "
                    "ask for a second origin (admit=True, --admit), which is kept apart"
                )


def _lengths(vectors: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.sqrt((vectors * vectors).sum(axis=-1)))  # np.linalg.norm takes twice as long for one vector


def _first_off(values: Float[np.ndarray, "..."], wanted: float) -> float:
    flat = np.ravel(values)
    return float(flat[np.argmax(~(np.abs(flat - wanted) <= _UNIT_TOLERANCE))])


def _check_unit(quaternion: Float[np.ndarray, "... 4"], where: str) -> None:
    length = _lengths(quaternion)
    if not (np.abs(length - 1) <= _UNIT_TOLERANCE).all():
        raise EntryError(
            f"{where} has a quaternion of length {_first_off(length, 1.0):.4g}, which is no rotation: expected a unit "
            "quaternion w, x, y, z"
        )
