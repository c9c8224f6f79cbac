"""The words of many texts at once, by numpy: what stands between white space, as `str.split` cuts it.

All texts are one array of characters with a blank between them; a word is the place where it begins and its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ID_BITS = 22
Integers = npt.NDArray[np.int64]
_SPACE, _DIGIT, _LETTER, _KNOWN = 1, 2, 4, 8
_FACTOR, _MIX = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
_kinds = np.zeros(0x110000, np.uint8)
"""What each character is, as far as it was asked for."""


class Counts(NamedTuple):
    """What the rules on quality count in a text."""

    num: int
    """Words with a letter or digit."""
    num_chars: int
    """Characters of those."""
    num_alpha: int
    """Words with a letter."""


class Words:
    """The words of some texts, one text behind the other. *Shapes*: C characters, N words, T texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        whole = " ".join([*texts, ""])
        units = whole.encode() if whole.isascii() else whole.encode("utf-32-le", "surrogatepass")
        kind: type[np.uint8 | np.uint32] = np.uint8 if len(units) == len(whole) else np.uint32
        self._units_C: npt.NDArray[np.uint8 | np.uint32] = np.frombuffer(units, kind)
        self._kinds_C = _kinds_of(self._units_C)
        is_space_C = (self._kinds_C & _SPACE).astype(np.bool_)
        changes = np.flatnonzero(np.diff(is_space_C, prepend=True))
        self._begin_N, end_N = changes[::2], changes[1::2]
        self.num_texts = len(texts)
        self.chars_N: Integers = end_N - self._begin_N
        """Characters of each word."""
        end_T = np.cumsum(np.array(list(map(len, texts)), np.int64) + 1)
        before_T = np.searchsorted(self._begin_N, end_T)
        self.num_T: Integers = np.diff(before_T, prepend=0)
        """Words of each text."""
        self.text_N: Integers = np.repeat(np.arange(len(texts)), self.num_T)
        """The text of each word."""

    def counts(self) -> list[Counts]:
        """The counts of each text."""
        kinds_N = np.bitwise_or.reduceat(self._kinds_C, self._begin_N) if len(self._begin_N) else np.zeros(0, np.uint8)
        is_word_N = kinds_N & (_DIGIT | _LETTER) > 0
        num_T = self._by_text(is_word_N)
        chars_T = self._by_text(np.where(is_word_N, self.chars_N, 0))
        alpha_T = self._by_text(kinds_N & _LETTER > 0)
        return list(map(Counts, num_T, chars_T, alpha_T))

    def _by_text(self, values_N: npt.NDArray[np.generic]) -> list[int]:
        found: list[int] = np.bincount(self.text_N, values_N, minlength=self.num_texts).astype(np.int64).tolist()
        return found

    def ids(self) -> Integers:
        """Numbers below 2 ** ID_BITS, the same for equal words and rarely for others: a polynomial hash."""
        powers, inverses = _powers(len(self._units_C))
        sums = np.cumsum(self._units_C.astype(np.uint64) * powers)
        before_N = np.where(self._begin_N > 0, sums[self._begin_N - 1], np.uint64(0)) if len(sums) else sums
        hash_N = (sums[self._begin_N + self.chars_N - 1] - before_N) * inverses[self._begin_N]
        found: Integers = ((hash_N ^ hash_N >> np.uint64(32)) * np.uint64(_MIX) >> np.uint64(64 - ID_BITS)).astype(np.int64)
        return found


def _kinds_of(units_C: npt.NDArray[np.uint8 | np.uint32]) -> npt.NDArray[np.uint8]:
    found_C = _kinds[units_C]
    if not found_C.all():
        for unit in np.unique(units_C[found_C == 0]).tolist():
            sign = chr(unit)
            _kinds[unit] = _KNOWN | _SPACE * sign.isspace() | _DIGIT * sign.isalnum() | _LETTER * sign.isalpha()
        found_C = _kinds[units_C]
    return found_C


_known_powers = [np.ones(1, np.uint64), np.ones(1, np.uint64)]


def _powers(num: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """So many powers of the factor, and of its inverse modulo 2 ** 64, from the zeroth on."""
    if num > len(_known_powers[0]):
        for place, factor in enumerate((_FACTOR, pow(_FACTOR, -1, 1 << 64))):
            factors = np.full(num, factor, np.uint64)
            factors[0] = 1
            _known_powers[place] = np.multiply.accumulate(factors)
    return _known_powers[0][:num], _known_powers[1][:num]
