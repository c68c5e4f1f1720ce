"""Where a residual enters a network of lerobot: by a hook on one of its modules, in the rows that have one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"

Form = Literal["vector", "words", "steps", "queries", "global_cond"]


@dataclass(frozen=True)
class Point:
    """A place in a network to which a residual [B, C] is added.

    Attributes:
        module: dotted name.
        size: C.
        form: what it is added to: the module's output [B, C] (vector), each word of the sentence in its output
            [B, L, C] (words), each entry of its output [B, L, C] (steps), each of its first argument [L, B, C]
            (queries), or its keyword argument of that name (global_cond).
    """

    module: str
    size: int
    form: Form


@contextmanager
def injected(
    network: nn.Module, point: Point, residual: Tensor | None, batch: Mapping[str, Any], everywhere: bool = False
) -> Iterator[None]:
    """Adds `residual` [B, C] at a point of the network inside the block.

    Rows of zeros stay as they are, bit for bit, unless it is added `everywhere`, as a gradient by it needs.
    """
    if residual is None:
        yield
        return
    given = residual  # known not to be None in what follows
    active = torch.ones(len(given), dtype=torch.bool, device=given.device) if everywhere else given.abs().amax(1) > 0

    def moved(x: Tensor) -> Tensor:
        added = given.to(x.dtype)
        if point.form in ("vector", "global_cond"):
            return torch.where(active[:, None], x + added, x)
        if point.form == "queries":
            return torch.where(active[None, :, None], x + added[None], x)
        rows = active[:, None]
        if point.form == "words":
            rows = rows & batch[MASK].bool()
        return torch.where(rows[:, :, None], x + added[:, None], x)

    def output(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        fits = len(out) == len(given) and out.ndim == (2 if point.form == "vector" else 3)
        return moved(out) if fits else out  # else other words that go through the same table

    def arguments(module: nn.Module, inputs: Any, keywords: dict[str, Any]) -> Any:
        if point.form == "queries":
            return (moved(inputs[0]), *inputs[1:]), keywords
        return inputs, {**keywords, point.form: moved(keywords[point.form])}

    at = network.get_submodule(point.module)
    if point.form in ("queries", "global_cond"):
        handle = at.register_forward_pre_hook(arguments, with_kwargs=True)
    else:
        handle = at.register_forward_hook(output)
    try:
        yield
    finally:
        handle.remove()
