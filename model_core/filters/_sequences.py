"""Which of many texts may break a rule on repeated sequences of words: bounds, computed for all of them at once.

A sequence that occurs twice is made of shorter ones that do, so each length looks only at the places that the one before left,
and ordinary text has few after two words. The bounds are never too low, and two words taken for one make them only higher;
whoever gets a text decides it word by word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_core.filters._words import ID_BITS, Integers, Words

_TABLE_BITS, _ODD = 20, 0x9E3779B97F4A7C15
Flags = npt.NDArray[np.bool_]


class _Repeated(NamedTuple):
    """The places where a sequence begins that occurs more than once in its text, sequence by sequence."""

    places_P: Integers
    group_P: Integers
    """Which sequence, counted from 0."""
    first_G: Integers
    """Where each sequence occurs first."""
    num_G: Integers
    """How often it occurs."""


def suspects(words: Words, num_chars_T: Integers, top: Mapping[int, float], duplicated: Mapping[int, float]) -> Flags:
    """Texts in which a sequence of `top`'s, or repeated ones of `duplicated`'s lengths, may hold more than their share.

    Both map a number of words to a share of the characters; `top` is for 2, 3, 4 … or empty, `duplicated` begins at least at 2.
    """
    return _Search(words, num_chars_T).suspects(top, duplicated)


class _Search:
    def __init__(self, words: Words, num_chars_T: Integers) -> None:
        self._ids_N, self._num_T, self._all_T = words.ids(), words.num_T, np.maximum(num_chars_T, 1)
        self._chars_N, self._text_N = words.chars_N, words.text_N
        self._before_N = np.concatenate(([0], np.cumsum(self._chars_N)))
        """Characters of all words before each place, and behind the last."""

    def suspects(self, top: Mapping[int, float], duplicated: Mapping[int, float]) -> Flags:
        found_T = np.zeros(len(self._num_T), np.bool_)
        repeated = self._pairs()
        least = min(duplicated, default=0)
        for num in range(2, max(*top, least, 2) + 1):
            repeated = repeated if num == 2 else self._longer(repeated)
            if num in top:
                found_T |= self._by_top(repeated, num, top[num])
            if num == least:
                found_T |= self._by_share(repeated, num, min(duplicated.values()))
        return found_T

    def _pairs(self) -> _Repeated:
        """Pairs of words; a table of counts under a hash leaves out most that occur once."""
        inside_N = self._text_N[1:] == self._text_N[:-1]
        places_P = np.flatnonzero(inside_N)
        keys_N = (self._text_N << ID_BITS | self._ids_N) << ID_BITS
        keys_P = keys_N[places_P] | self._ids_N[places_P + 1]
        hashes_P = (keys_P.view(np.uint64) * np.uint64(_ODD) >> np.uint64(64 - _TABLE_BITS)).view(np.int64)
        often_P = np.bincount(hashes_P, minlength=1 << _TABLE_BITS)[hashes_P] > 1
        return self._grouped(places_P[often_P], keys_P[often_P])

    def _longer(self, shorter: _Repeated) -> _Repeated:
        """Sequences with one word more: a sequence of the shorter, followed by another that begins one word later."""
        group_N = np.full(len(self._ids_N) + 1, -1)
        group_N[shorter.places_P] = shorter.group_P
        next_P = group_N[shorter.places_P + 1]
        goes_on_P = next_P >= 0
        places_P = shorter.places_P[goes_on_P]
        return self._grouped(places_P, shorter.group_P[goes_on_P] << ID_BITS | next_P[goes_on_P])

    @staticmethod
    def _grouped(places_P: Integers, keys_P: Integers) -> _Repeated:
        """Those of equal keys, when there are two or more; a key knows its text."""
        order_P = np.argsort(keys_P)
        places_P, keys_P = places_P[order_P], keys_P[order_P]
        is_same_P = keys_P[1:] == keys_P[:-1]
        kept = np.flatnonzero(np.append(is_same_P, False) | np.append(False, is_same_P))
        places_P, keys_P = places_P[kept], keys_P[kept]
        begins_G = np.flatnonzero(np.diff(keys_P, prepend=-1))
        num_G = np.diff(np.append(begins_G, len(places_P)))
        first_G = np.minimum.reduceat(places_P, begins_G) if len(begins_G) else begins_G
        return _Repeated(places_P, np.repeat(np.arange(len(num_G)), num_G), first_G, num_G)

    def _by_top(self, repeated: _Repeated, num: int, most: float) -> Flags:
        """Any repeated sequence, or the first of a text when none is, against the share of the most frequent one."""
        found_T = np.zeros(len(self._num_T), np.bool_)
        long_T = self._num_T >= num
        starts_T = (np.cumsum(self._num_T) - self._num_T)[long_T]
        found_T[long_T] = self._chars(starts_T, num) / self._all_T[long_T] > most
        texts_G = self._text_N[repeated.first_G]
        too_often_G = self._chars(repeated.first_G, num) * repeated.num_G / self._all_T[texts_G] > most
        found_T[texts_G[too_often_G]] = True
        return found_T

    def _by_share(self, repeated: _Repeated, num: int, most: float) -> Flags:
        """The words that lie in a sequence that came before."""
        again_P = repeated.places_P != repeated.first_G[repeated.group_P]
        covered = np.unique(repeated.places_P[again_P][:, None] + np.arange(num))
        chars_T = np.bincount(self._text_N[covered], self._chars_N[covered], minlength=len(self._num_T))
        return chars_T / self._all_T > most

    def _chars(self, places: Integers, num: int) -> Integers:
        """Characters of the sequences that begin there, a space between the words."""
        found: Integers = self._before_N[places + num] - self._before_N[places] + num - 1
        return found
