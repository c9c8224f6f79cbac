"""Which of many texts are surely in a wanted language: py3langid's automaton and scores, for all of them at once.

`py3langid` walks its automaton byte by byte; here every text takes its step at the same time. Sums are rounded otherwise than
there, so that a text counts as sure only well beyond the bound, and whoever asks lets `py3langid` decide all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_MARGIN = 0.01
"""Of a probability; sums in another order change it by less than a ten thousandth."""
_NUM_AT_ONCE = 1024
"""Texts; so many times the number of features is below 2 ** 31."""
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Languages:
    """The tables of an identifier whose probabilities sum to one."""

    def __init__(self, identifier: Any) -> None:
        self._encode = identifier._encode
        self._labels = list(identifier.nb_classes)
        self._moves = np.frombuffer(identifier.tk_nextmove, np.dtype(f"u{identifier.tk_nextmove.itemsize}"))
        self._rows_S = np.array(identifier._rowbase, np.int64)
        self._features_S = np.array(identifier.tk_output, np.int64)
        self._scores_FL, self._prior_L = identifier.nb_ptc, identifier.nb_pc
        self._same = identifier._alias_pairs

    def surely(self, texts: Sequence[str], wanted: Sequence[str], confidence: float) -> list[bool]:
        """Whether a text is in one of the languages with more than this probability; False may also be a narrow yes."""
        columns = [place for place, label in enumerate(self._labels) if label in wanted]
        sure: list[bool] = []
        for start in range(0, len(texts), _NUM_AT_ONCE):
            shares_TL = self._shares([self._encode(text) for text in texts[start : start + _NUM_AT_ONCE]])
            most_T = shares_TL[:, columns].max(axis=1, initial=0.0)
            sure.extend((most_T > max(confidence, 0.5) + _MARGIN).tolist())
        return sure

    def _shares(self, texts: list[bytes]) -> Floats:
        """Probabilities by text and language; those of a language that the model knows twice are in its first column."""
        num_T = np.array(list(map(len, texts)), np.int64)
        scores_TL = self._sums(self._visits(texts, num_T), len(texts))
        is_empty_T = ~scores_TL.any(axis=1)
        scores_TL += self._prior_L
        scores_TL *= (1 / np.sqrt(np.maximum(num_T, 1))).astype(np.float32)[:, None]
        shares_TL: Floats = np.exp(scores_TL - scores_TL.max(axis=1, keepdims=True))
        shares_TL /= shares_TL.sum(axis=1, keepdims=True)
        for first, second in self._same:
            shares_TL[:, first] += shares_TL[:, second]
            shares_TL[:, second] = 0
        shares_TL[is_empty_T] = 0
        return shares_TL

    def _visits(self, texts: list[bytes], num_T: Integers) -> Integers:
        """feature · number of texts + text, at each visit to a feature, in any order."""
        order_T = np.argsort(-num_T, kind="stable")
        letters_BT = np.zeros((num_T.max(initial=0), len(texts)), np.int64)
        for column, place in enumerate(order_T.tolist()):
            letters_BT[: num_T[place], column] = np.frombuffer(texts[place], np.uint8)
        states_T = np.zeros(len(texts), np.int64)
        visited_BT = np.full_like(letters_BT, -1)
        going_B = np.searchsorted(-num_T[order_T], -np.arange(1, len(letters_BT) + 1), side="right")
        for byte, num in enumerate(going_B.tolist()):
            states_T = self._moves[self._rows_S[states_T[:num]] + letters_BT[byte, :num]].astype(np.int64)
            visited_BT[byte, :num] = states_T
        features_BT = self._features_S[visited_BT]
        return (features_BT * len(texts) + order_T)[(features_BT >= 0) & (visited_BT >= 0)]

    def _sums(self, visits: Integers, num_texts: int) -> Floats:
        """Σ log(1 + visits of a feature) · its scores, by text and language."""
        from scipy.sparse import csc_array

        visits = np.sort(visits.astype(np.int32))
        begins_V = np.flatnonzero(np.diff(visits, prepend=-1))
        feature_V, text_V = np.divmod(visits[begins_V], num_texts)
        weights_V = np.log1p(np.diff(begins_V, append=len(visits)).astype(np.float32))
        begins_F = np.flatnonzero(np.diff(feature_V, prepend=-1))
        columns = (weights_V, text_V, np.append(begins_F, len(text_V)))
        weights_TF = csc_array(columns, shape=(num_texts, len(begins_F)))
        found: Floats = weights_TF @ self._scores_FL[feature_V[begins_F]].astype(np.float32)
        return found
