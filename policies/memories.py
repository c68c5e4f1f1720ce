"""Memories of a frozen policy by name, the shipped weights among them."""

from collections.abc import Sequence
from pathlib import Path

from vlamem.memory.registry import MemoryName, load_memory
from vlamem.memory.runner import MemoryRunner
from vlamem.policies.protocol import FrozenPolicy
from vlamem.policies.registry import weights_hash

SHIPPED_GATE = Path(__file__).parent / "tiny" / "gate.safetensors"
SHIPPED = {"aura": SHIPPED_GATE}
"""Kinds of memory that come with weights, those of the shipped policy."""


def parse_memories(texts: Sequence[str]) -> tuple[MemoryName, ...]:
    """Memories from KIND[:FILE][?option=value], "none" and nothing for none. Raises MemoryNameError.

    A memory cannot be given twice.
    """
    if tuple(texts) == ("none",):
        return ()
    names = tuple(MemoryName.parse(text, SHIPPED) for text in texts)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"memory '{texts[i]}' is given twice: leave one out")
    return names


def load_memories(
    names: Sequence[MemoryName], policy: FrozenPolicy, weights_sha256: str | None, rows: int
) -> tuple[MemoryRunner, ...]:
    """A runner for each name. Raises WeightsError or OriginError for a file of another policy."""
    known = weights_sha256 or weights_hash(policy)
    return tuple(load_memory(name, policy, known, rows) for name in names)
