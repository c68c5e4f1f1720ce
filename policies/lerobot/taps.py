"""Where the feature z is read from a frozen network: the output of named modules, pooled.

The network's own forward pass runs with hooks on these modules and is left as soon as all of them have run, so that
a tap in the vision tower costs the vision tower and nothing behind it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from vlamem.policies.lerobot.source import CheckpointError

POOLINGS = ("mean", "max", "grid2", "grid4")
"""mean and max over tokens or pixels; gridN is the mean over each field of an N x N grid, which keeps places apart."""


class GridError(CheckpointError):
    """A grid over tokens that are no square."""


class _Reached(Exception):  # noqa: N818  # not an error: it ends a forward pass whose rest is not needed
    """All tapped modules have run."""


@dataclass(frozen=True)
class Tap:
    """A place in the network.

    Attributes:
        name: as the user gave it, or an alias of the family such as "vision".
        modules: dotted names; their outputs are concatenated.
        pooling: see POOLINGS.
        sequence_first: whether outputs are [L, B, D] rather than [B, L, D].
        calls: how often the modules run in one pass, all together; 0 when that is not known yet.
    """

    name: str
    modules: tuple[str, ...]
    pooling: str = "mean"
    sequence_first: bool = False
    calls: int = 0


def parse_tap(text: str, aliases: dict[str, Tap], network: nn.Module) -> Tap:
    """The tap that "ALIAS", "dotted.module" or either with ":POOLING" means.

    Raises CheckpointError naming the aliases, or the nearest modules, for one that does not exist.
    """
    name, _, pooling = text.partition(":")
    pooling = pooling or "mean"
    if pooling not in POOLINGS:
        raise CheckpointError(f"unknown pooling '{pooling}' in tap '{text}': choose one of {', '.join(POOLINGS)}")
    if name in aliases:
        alias = aliases[name]
        return Tap(f"{name}:{pooling}", alias.modules, pooling, alias.sequence_first)
    known = dict(network.named_modules())
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
        raise CheckpointError(
            f"no tap '{name}': choose one of {', '.join(aliases)}, or a module of the network"
            + (f", e.g. {', '.join(near)}" if near else "")
        )
    first = any(alias.sequence_first and name.startswith(alias.modules) for alias in aliases.values())
    return Tap(f"{name}:{pooling}", (name,), pooling, first)


@contextmanager
def captured(network: nn.Module, tap: Tap, leave: bool) -> Iterator[list[Tensor]]:
    """Collects the tapped outputs inside the block; with `leave`, ends the pass after `tap.calls` of them."""
    activations: list[Tensor] = []

    def capture(module: nn.Module, inputs: Any, output: Any) -> None:
        activations.append(_tensor(output))
        if leave and len(activations) == tap.calls:
            raise _Reached

    handles = [network.get_submodule(name).register_forward_hook(capture) for name in tap.modules]
    try:
        with suppress(_Reached):  # the pass ends here because nothing behind the tap is needed
            yield activations
    finally:
        for handle in handles:
            handle.remove()


def read(network: nn.Module, tap: Tap, forward: Callable[[], Any]) -> list[Tensor]:
    """Outputs of the tapped modules in `forward`, which goes no further than the last of them."""
    with captured(network, tap, leave=True) as activations:
        forward()
    return activations


def pool(activations: Sequence[Tensor], tap: Tap, rows: int) -> Tensor:
    """[B, D] float32 from the outputs of one pass.

    Outputs may stack cameras and history before or behind the rows' axis, as [B * n, ...]. Raises GridError for a grid
    over tokens that are no square.
    """
    parts = []
    for raw in activations:
        output = raw.transpose(0, 1) if tap.sequence_first and raw.ndim == 3 else raw
        parts.append(_pool(output.float(), tap).reshape(rows, -1))
    return torch.cat(parts, dim=1)


def _pool(x: Tensor, tap: Tap) -> Tensor:
    """[N, D] from [N, D], tokens [N, L, D] or maps [N, D, h, w]."""
    if x.ndim == 2:
        return x
    if tap.pooling in ("mean", "max"):
        axes = (1,) if x.ndim == 3 else (2, 3)
        return x.mean(axes) if tap.pooling == "mean" else x.amax(axes)
    if x.ndim == 3:
        side = isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise GridError(
                f"tap '{tap.name}' has {x.shape[1]} tokens, which are no square grid: use mean or max, or another tap"
            )
        x = x.transpose(1, 2).reshape(len(x), -1, side, side)
    return torch.nn.functional.adaptive_avg_pool2d(x, int(tap.pooling[-1])).flatten(1)


def _tensor(output: Any) -> Tensor:
    """The main tensor of a module's output."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "last_hidden_state"):
        return _tensor(output.last_hidden_state)
    values = list(output.values()) if isinstance(output, dict) else list(output)
    return _tensor(next(v for v in values if v is not None))
