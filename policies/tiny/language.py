"""Sentences to word numbers: lower-cased words of a fixed vocabulary that is stored with the weights."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z0-9]+")


class InstructionError(ValueError):
    """A sentence that the tokeniser cannot take; the message shows it."""


def words_of(sentence: str) -> list[str]:
    """The lower-cased words and numbers of a sentence; punctuation is dropped."""
    return _WORD.findall(sentence.lower())


@dataclass(frozen=True)
class Tokeniser:
    """Maps sentences to rows of word numbers; 0 pads, 1 stands for every word that is not in the vocabulary.

    Training replaces words by 1 at random, so that a sentence with a few new words keeps its meaning.

    Attributes:
        words: the vocabulary; word i has number i + 2.
        length: most words that a sentence may have.
    """

    words: tuple[str, ...]
    length: int = 32

    @classmethod
    def of(cls, sentences: Iterable[str], length: int = 32) -> "Tokeniser":
        """A tokeniser that knows every word of `sentences`, in alphabetical order."""
        return cls(tuple(sorted({w for s in sentences for w in words_of(s)})), length)

    @property
    def size(self) -> int:
        """Number of word numbers, padding and unknown included."""
        return len(self.words) + 2

    def __call__(self, sentences: Sequence[str]) -> Int64[NDArray[np.int64], "B length"]:
        """Word numbers, one row a sentence; raises InstructionError for an empty or too long sentence."""
        number = {w: i + 2 for i, w in enumerate(self.words)}
        rows = np.full((len(sentences), self.length), PAD, np.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            words = words_of(sentence)
            if not words:
                raise InstructionError(f"instruction {sentence!r} has no words: say what to do")
            if len(words) > self.length:
                raise InstructionError(f"instruction of {len(words)} words, at most {self.length}: {sentence!r}")
            row[: len(words)] = [number.get(w, UNKNOWN) for w in words]
        return rows
