"""What a policy sees, and what it makes of it; one row per environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

Rows = Sequence[int] | Int[np.ndarray, "S"]


def by_key(observation: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a dictionary, those of an inner one as "outer/inner", in their order."""
    found: dict[str, Any] = {}
    for key, value in observation.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{inner}": x for inner, x in by_key(value).items()}
        else:
            found[str(key)] = value
    return found


@dataclass(frozen=True)
class Observation:
    """A batch of observations, one row per environment.

    Attributes:
        images: by camera name, RGB, upright; with a history axis after B for policies that read several frames.
        proprioception: end-effector position [m] (3), orientation as a unit quaternion w, x, y, z (4), gripper
            opening [m] (1) for the tabletop suite; other suites say theirs in their spec.
        instruction: one sentence per row.
    """

    images: dict[str, UInt8[np.ndarray, "B *history height width 3"]]
    proprioception: Float[np.ndarray, "B *history P"]
    instruction: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.instruction)

    @property
    def history(self) -> int | None:
        """Observations that each row holds, the newest last; None without an axis for them."""
        return int(self.proprioception.shape[1]) if np.ndim(self.proprioception) == 3 else None

    @property
    def moments(self) -> tuple["Observation", ...]:
        """The observations that rows hold, oldest first, each without that axis."""
        if self.history is None:
            return (self,)
        return tuple(
            Observation(
                {name: images[:, at] for name, images in self.images.items()},
                self.proprioception[:, at],
                self.instruction,
            )
            for at in range(self.history)
        )

    def rows(self, index: Rows) -> "Observation":
        """The part for some of its rows, in the order given, as a copy."""
        at = np.asarray(index, np.int64)
        return Observation(
            {name: images[at] for name, images in self.images.items()},
            self.proprioception[at],
            tuple(self.instruction[i] for i in at),
        )

    @classmethod
    def stack(cls, parts: Sequence["Observation"]) -> "Observation":
        """All rows of `parts`, in their order. Raises ValueError for no parts, KeyError where cameras differ."""
        if not parts:
            raise ValueError("there is no observation to stack: expected one or more")
        return cls(
            {name: np.concatenate([part.images[name] for part in parts]) for name in parts[0].images},
            np.concatenate([part.proprioception for part in parts]),
            tuple(sentence for part in parts for sentence in part.instruction),
        )


@runtime_checkable
class RowWise(Protocol):
    """Something with one row per environment, of which a part can be taken."""

    def rows(self, index: Rows) -> Self:
        """The part for some of its rows, in the order given."""
        ...


@dataclass(frozen=True)
class Encoding:
    """What a policy's `encode` makes of an observation.

    Attributes:
        z: [B, D], what a memory reads at every control step.
        key: [B, K], unit length, for retrieval.
        context: the conditioning, opaque to all but the policy that made it; taken by its `sample`.
    """

    z: Float[np.ndarray, "B D"]
    key: Float[np.ndarray, "B K"]
    context: Any

    def rows(self, index: Rows) -> "Encoding":
        """The part for some of its rows, in the order given. Raises TypeError where the context cannot be parted."""
        at = np.asarray(index, np.int64)
        return Encoding(self.z[at], self.key[at], _part(self.context, at))


def _part(context: Any, at: Int[np.ndarray, "S"]) -> Any:
    """Rows of a conditioning: of something row-wise, of an array or a tensor, or of nothing."""
    if context is None:
        return None
    if isinstance(context, RowWise):
        return context.rows(at)
    if hasattr(context, "shape"):
        return context[at]
    raise TypeError(
        f"the conditioning of this policy ({type(context).__name__}) has no rows(index): give it one, so that some "
        "rows of a batch can be planned without encoding them again"
    )
