"""Why a memory proposed nothing, and what a retrieved proposal was made of, in the words of traces and reports."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from vlamem.memory.runner import MemoryRunner, RecurrentRunner
from vlamem.memory.step_out import StepOut

UNSURE = "unsure"
"""The confidence was below what the memory is asked for."""
REFUSED = "refused"
"""What the memory was to read was not finite or too large."""
SILENT = "nothing to propose"
"""The memory gives no reason of its own."""


class Retrieved(Protocol):
    """What a proposal by retrieval was made of, or why there was none."""

    @property
    def used(self) -> Int[np.ndarray, "U"]:
        """Ids of the stored segments behind it."""

    @property
    def similarity(self) -> float:
        """Of the nearest stored state."""

    @property
    def spread(self) -> float:
        """Mean distance of the used chunks from their mean."""

    @property
    def failure(self) -> float:
        """0 to 1, likeness to what preceded failures."""

    @property
    def why(self) -> str:
        """Why nothing is proposed; empty where something is."""


@runtime_checkable
class _Store(Protocol):
    @property
    def last(self) -> Sequence[Retrieved]:
        """Of the last proposal, one a row."""


def retrieves(memory: MemoryRunner) -> bool:
    """Whether a memory proposes by retrieval: its attribute `memory` keeps what the last proposal was made of."""
    return isinstance(getattr(memory, "memory", None), _Store)


def retrieved(memory: MemoryRunner, at: int) -> Retrieved | None:
    """What row `at` of the last proposal of a memory was made of; None where nothing is retrieved for it."""
    store = getattr(memory, "memory", None)
    return store.last[at] if isinstance(store, _Store) and store.last else None


def settings(memory: MemoryRunner) -> dict[str, float | str]:
    """What a memory's decisions are held against, by name: for who explains them later."""
    found: dict[str, float | str] = {}
    if isinstance(memory, RecurrentRunner):
        found |= {"abstain_below": memory.options.abstain_below}
    store = getattr(memory, "memory", None)
    for name in _RETRIEVE:
        value = getattr(getattr(store, "retrieve", None), name, None)
        if isinstance(value, float):
            found[name] = value
    if isinstance(store, _Store) and (file := getattr(getattr(store, "store", None), "name", None)):
        found["store"] = str(file)
    return found


_RETRIEVE = ("threshold", "agreement", "reach")
"""Options of retrieval that decide whether a memory abstains."""


def why_abstained(memory: MemoryRunner, out: StepOut | None, at: int) -> str:
    """Why row `at` of its last proposal had no weight; `out` is the step that the proposal was made from."""
    found = retrieved(memory, at)
    if found is not None:
        return found.why or (UNSURE if found.failure < 1 else "like a failure")
    if out is None:
        return SILENT
    if np.asarray(out.refused)[at]:
        return REFUSED
    unsure = isinstance(memory, RecurrentRunner) and np.asarray(out.confidence)[at] < memory.options.abstain_below
    return UNSURE if unsure else SILENT
