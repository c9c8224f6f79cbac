"""Sequences of words as 64-bit numbers, the same in every process; for comparing texts by what they share.

Words are runs of letters and digits without regard to case, so that punctuation and spacing make no difference. A text of n
words has n - k + 1 sequences of k; one of fewer words is a single sequence.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
WORD = re.compile(r"[^\W_]+")
_FACTOR = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_MAX_REMEMBERED = 200_000


def words_of(text: str) -> list[str]:
    """Its words, folded to one case."""
    return WORD.findall(text.casefold())


class Shingles:
    """Numbers of words are remembered, so that a text costs one look-up a word."""

    def __init__(self) -> None:
        self._words = _Hashes()

    def of(self, words: list[str], num: int) -> Numbers:
        """The number of each sequence of `num` words, in order; of all words when there are fewer, none of none."""
        hashes = np.fromiter(map(self._words.__getitem__, words), np.uint64, len(words))
        num = min(num, len(words))
        if not num:
            return hashes
        total = np.zeros(len(words) - num + 1, np.uint64)
        for place in range(num):
            total *= np.uint64(_FACTOR)
            total += hashes[place : len(words) - num + 1 + place]
        return mixed(total)


class _Hashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        data = word.encode("utf-8", "surrogatepass")
        found = (zlib.crc32(data) << 32 | zlib.crc32(data, 0x5BD1E995)) * _FACTOR & _MASK
        self[word] = found
        return found


def mixed(values: Numbers) -> Numbers:
    """Every bit depends on every bit. Source: the finalizer of MurmurHash3."""
    values = values ^ values >> np.uint64(33)
    values = values * np.uint64(0xFF51AFD7ED558CCD)
    values = values ^ values >> np.uint64(33)
    values = values * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ values >> np.uint64(33)
