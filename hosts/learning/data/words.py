"""Texts as numbers of their words, and how much each word tells.

A word's number is its rank by the texts that it occurs in, over the file that the scenario names; these document
frequencies are aggregates over that file, as the scaling of a table is, and no label takes part.  The weights are
tf-idf's usual ones (sublinear tf, smoothed idf: scikit-learn's ``TfidfTransformer``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MOST_WORDS = 16_384  # of a vocabulary, the commonest: numbers are int16, and each word is a row of the model
LONGEST_TEXT = 512  # words; what follows is left aside
TEXT_LENGTH = 10.0  # of a text's vector: gradient descent at the usual rates then needs few passes
_WORD = re.compile(r"[^\W_]{2,}")


def words(text: str) -> list[str]:
    """Return a text's words of two letters or digits and more, in lower case."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words of some texts, the commonest first, and their inverse document frequencies."""

    numbers: dict[str, int]
    idf: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], most: int = MOST_WORDS) -> Vocabulary:
        """Return the vocabulary of texts; ``idf`` (words + 1,) float32 is 0 for number 0, which is no word."""
        held: Counter[str] = Counter()
        for text in texts:
            held.update(sorted(set(words(text))))
        kept = sorted(held, key=lambda word: (-held[word], word))[:most]
        weights = np.log((1 + len(texts)) / (1 + np.asarray([held[word] for word in kept]))) + 1
        numbers = {word: number for number, word in enumerate(kept, start=1)}
        return cls(numbers, np.concatenate([[0.0], weights]).astype(np.float32))

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's words, as far as they are known."""
        known = (self.numbers.get(word) for word in words(text))
        return [number for number in known if number is not None][:LONGEST_TEXT]

    def encode_all(self, texts: Iterable[str]) -> np.ndarray:
        """Return texts as (texts, words of the longest) int16, shorter ones filled up with 0."""
        rows = [self.encode(text) for text in texts]
        block = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int16)
        for row, numbers in zip(block, rows, strict=True):
            row[: len(numbers)] = numbers
        return block
