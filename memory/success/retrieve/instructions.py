"""Which stored instructions mean the same as the one at hand."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vlamem.memory.success.experience.records import Instruction

_REMEMBERED = 256
"""Instructions whose matches are remembered; a client may invent new ones for ever."""


class InstructionMatcher:
    """Finds stored instructions by their words, or by the policy's vector of them where both have one.

    Args:
        stored: every instruction of the store.
        threshold: cosine of two vectors from which on instructions mean the same.
    """

    def __init__(self, stored: Sequence[Instruction], threshold: float) -> None:
        self._threshold = threshold
        self._stored = {i.text: i for i in stored}
        self._matches: dict[tuple[str, bytes | None], np.ndarray | None] = {}

    def exact(self, text: str) -> int | None:
        """Id of the instruction in these very words, or None."""
        found = self._stored.get(text)
        return None if found is None else found.id

    def matches(self, text: str, meaning: Float[np.ndarray, "C"] | None) -> Int[np.ndarray, "G"] | None:
        """Ids of the instructions that mean the same; None when all do. `meaning` is the policy's vector of `text`."""
        asked = (text, None if meaning is None else meaning.tobytes())
        if asked not in self._matches:
            found = [i.id for i in self._stored.values() if self._same(i, text, meaning)]
            if len(self._matches) >= _REMEMBERED:
                self._matches.clear()
            self._matches[asked] = None if len(found) == len(self._stored) else np.array(found, np.int64)
        return self._matches[asked]

    def _same(self, stored: Instruction, text: str, meaning: Float[np.ndarray, "C"] | None) -> bool:
        if stored.text == text:
            return True
        if meaning is None or stored.meaning is None or stored.meaning.shape != meaning.shape:
            return False
        product = float(np.linalg.norm(meaning) * np.linalg.norm(stored.meaning))
        return float(meaning @ stored.meaning) >= self._threshold * max(product, 1e-12)
