"""What a network of lerobot reads of an observation, kept as numbers, so that its loss needs no picture.

The outputs of the network's vision are kept, with the state and the tokens of the sentence. The network then runs by
its own code, with these outputs put in place of its vision.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from vlamem.policies.lerobot.injection import MASK, TOKENS

STATE, TASK = "observation.state", "task"
_PIXELS = 8
"""Side of the pictures that stand for those that were seen: none of their pixels is read."""
_DIGIT = 1024
"""Tokens are kept as two numbers below this, which float16 holds exactly."""


@dataclass(frozen=True)
class Vision:
    """A method of one of the network's modules through which all that it sees goes.

    Attributes:
        module: dotted name.
        method: called once, or once a camera.
        key: of the dictionary that it puts out; empty where it puts out a tensor.
    """

    module: str
    method: str = "forward"
    key: str = ""


class _Seen(Exception):  # noqa: N818  # not an error: it ends a pass whose rest is not needed
    """All of the network's vision has run."""


@contextmanager
def recorded(network: nn.Module, vision: Sequence[Vision], calls: int = 0) -> Iterator[list[Tensor]]:
    """Collects what the network's vision puts out inside the block, which ends after `calls` of them; 0 for no end."""
    outputs: list[Tensor] = []

    def recording(part: Vision, own: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            out = own(*given, **named)
            outputs.append(out[part.key] if part.key else out)
            if len(outputs) == calls:
                raise _Seen
            return out

        return call

    with suppress(_Seen), _replaced(network, vision, recording):
        yield outputs


@contextmanager
def replayed(network: nn.Module, vision: Sequence[Vision], seen: Sequence[Tensor]) -> Iterator[None]:
    """Puts out what was `seen`, [B, n, ...] each, in place of the network's vision inside the block; nothing when it
    is empty."""
    if not seen:
        yield
        return
    left = [rows.flatten(0, 1) for rows in seen]

    def replaying(part: Vision, own: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            out = left.pop(0)
            return {part.key: out} if part.key else out

        return call

    with _replaced(network, vision, replaying):
        yield


@contextmanager
def _replaced(network: nn.Module, vision: Sequence[Vision], made: Callable[[Vision, Any], Any]) -> Iterator[None]:
    """Puts what is made of each of the vision's methods in its place inside the block."""
    places = [(network.get_submodule(part.module), part) for part in vision]
    before = [vars(owner).get(part.method) for owner, part in places]  # None where it is the class's own
    for owner, part in places:
        setattr(owner, part.method, made(part, getattr(owner, part.method)))
    try:
        yield
    finally:
        for (owner, part), own in zip(places, before, strict=True):
            if own is None:
                delattr(owner, part.method)
            else:
                setattr(owner, part.method, own)


@dataclass(frozen=True)
class Packing:
    """Sizes of what is kept of a row.

    Attributes:
        seen: of each of the vision's outputs, n and what follows it: [B * n, ...] is kept as [B, n, ...].
        images: the network's image keys.
        history: observations that it reads.
        state: P of the network's state, 0 for none.
        tokens: most words of a sentence, 0 for none; shorter ones are filled up, and masked there.
        mask: type of the mask of these words.
    """

    seen: tuple[tuple[int, ...], ...]
    images: tuple[str, ...]
    history: int
    state: int
    tokens: int
    mask: torch.dtype = torch.bool

    @classmethod
    def of(
        cls, outputs: Sequence[Tensor], batch: dict[str, Any], images: Sequence[str], history: int, most: int
    ) -> "Packing":
        """The sizes that a pass of one row shows, and `most` words of a sentence, or its own where these are more."""
        state = batch.get(STATE)
        words = batch.get(TOKENS)
        return cls(
            tuple(tuple(out.shape) for out in outputs),
            tuple(images),
            history,
            0 if state is None else int(state.shape[-1]),
            0 if words is None else max(int(words.shape[-1]), most),
            torch.bool if words is None else batch[MASK].dtype,
        )

    @property
    def size(self) -> int:
        """N, numbers of a row."""
        states = 2 * self.state * (self.history + 1)  # as the network reads it, and as the robot says it
        return sum(int(np.prod(shape)) for shape in self.seen) + states + 3 * self.tokens

    def rows(self, outputs: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
        """The vision's outputs with rows first, [B, n, ...]."""
        return tuple(out.reshape(count, *shape) for out, shape in zip(outputs, self.seen, strict=True))

    def pack(
        self, seen: Sequence[Tensor], batch: dict[str, Any], proprioception: Float[NDArray[np.float32], "B P"]
    ) -> Float[NDArray[np.float16], "B N"]:
        """Rows of numbers; states and tokens are each kept as two, of which the second holds what the first lost."""
        parts = [rows.flatten(1).float() for rows in seen]
        if self.state:
            raw = torch.from_numpy(np.array(proprioception, np.float32)).to(batch[STATE].device)
            for numbers in (batch[STATE].flatten(1).float(), raw):
                rough = numbers.half().float()
                parts += [rough, numbers - rough]
        if self.tokens:
            words, mask = (self._filled(batch[name]) for name in (TOKENS, MASK))
            parts += [words // _DIGIT, words % _DIGIT, mask]
        return np.asarray(torch.cat([part.half() for part in parts], 1).cpu().numpy())

    def unpack(
        self, packed: Float[NDArray[Any], "B N"], device: str
    ) -> tuple[tuple[Tensor, ...], dict[str, Any], Float[NDArray[np.float32], "B P"]]:
        """What `pack` was given: the vision's outputs, a batch without pictures, and proprioception.

        Raises ValueError for rows of another size.
        """
        if packed.ndim != 2 or packed.shape[1] != self.size:
            raise ValueError(f"packed conditioning is {list(packed.shape)}, expected [{len(packed)}, {self.size}]")
        count = len(packed)
        numbers = torch.from_numpy(np.array(packed, np.float32)).to(device)
        sizes = [int(np.prod(shape)) for shape in self.seen]
        read = self.state * self.history
        sizes += [read, read, self.state, self.state, *[self.tokens] * 3]
        *seen, rough, rest, raw, more, high, low, mask = torch.split(numbers, sizes, dim=1)
        several = (self.history,) if self.history > 1 else ()
        blank = torch.zeros((), device=device).expand(count, *several, 3, _PIXELS, _PIXELS)
        batch: dict[str, Any] = dict.fromkeys(self.images, blank) | {TASK: [""] * count}
        if self.state:
            batch[STATE] = (rough + rest).reshape(count, *several, self.state)
        if self.tokens:
            longest = int(mask.any(0).nonzero().max()) + 1 if mask.any() else 1
            batch[TOKENS] = (high * _DIGIT + low).round().long()[:, :longest]
            batch[MASK] = mask.to(self.mask)[:, :longest]
        return self.rows(seen, count), batch, (raw + more).cpu().numpy()

    def _filled(self, words: Tensor) -> Tensor:
        if words.shape[1] > self.tokens:
            raise ValueError(f"a sentence has {words.shape[1]} tokens, this policy keeps {self.tokens}")
        return torch.nn.functional.pad(words, (0, self.tokens - words.shape[1]))
