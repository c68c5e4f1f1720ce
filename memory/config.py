"""What every memory design is configured by: what its head proposes, and settings that are checked by name and type.

Needs no JAX, so that a robot with NumPy alone reads the same configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from types import NoneType
from typing import Any, get_args, get_type_hints

FEATURE_LIMIT = 1e3
"""Root mean square of a standardised feature row above which it is refused, as a row with NaN or infinity is."""

_PLAIN = (bool, int, float, str, NoneType)


@dataclass(frozen=True)
class HeadConfig:
    """What the head proposes; at least one of the three.

    Attributes:
        chunk: (H, A), horizon in control steps and action size of a proposed chunk, or None.
        context: C, size of the proposed context residual, 0 for none.
        answer: n, number of answers in a benchmark, 0 for none.
        hidden: width of the hidden layer.
    """

    chunk: tuple[int, int] | None = None
    context: int = 0
    answer: int = 0
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.chunk is None and self.context == 0 and self.answer == 0:
            raise ValueError("a head needs a chunk (H, A), a context size or a number of answers")
        if self.hidden < 1 or self.context < 0 or self.answer < 0 or (self.chunk and min(self.chunk) < 1):
            raise ValueError(f"sizes of a head must be positive, got {self}")

    @property
    def outputs(self) -> int:
        """Entries of the last layer: one for the confidence, then chunk, context and answer."""
        return 1 + (self.chunk[0] * self.chunk[1] if self.chunk else 0) + self.context + self.answer

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "HeadConfig":
        """From what JSON makes of it. Raises ValueError for an unknown setting."""
        chunk = config.get("chunk")
        return cls(**checked_settings(cls, {**config, "chunk": None if chunk is None else tuple(chunk)}))


def checked_settings(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, if all of it are fields of the dataclass `kind` and have their types; an int will do for a float.

    Raises ValueError naming the setting, and the nearest known one or the type that was expected.
    """
    known, hints = [field.name for field in fields(kind)], get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1, 0.0)[0]
            raise ValueError(f"{kind.__name__} has no setting {name!r}, the nearest is {near!r}")
        expected = [t for t in (get_args(hints[name]) or (hints[name],)) if t in _PLAIN]
        right = type(value) in expected or (type(value) is int and float in expected)
        if isinstance(value, _PLAIN) and not right:
            names = " or ".join("None" if t is NoneType else t.__name__ for t in expected) or "something else"
            raise ValueError(f"setting {name!r} of {kind.__name__} is {value!r}: expected {names}")
    return dict(given)
