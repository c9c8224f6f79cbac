"""Drops texts that are no prose: too short, words too long, mostly signs, bullets or dots, no function words.

Source: Rae et al., “Scaling Language Models: … Gopher” (arXiv 2112.11446), appendix A1.1. Words are what stands between white
space, as in Dolma (arXiv 2402.00159); tokenizers that split signs off count more of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, TextName, share, text_of
from model_core.filters._words import Counts, Words
from model_core.registry import registered

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_BETWEEN_BLANKS = tuple(f" {word} " for word in STOP_WORDS)
_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")


@registered
class GopherQuality:
    """The quality rules of Gopher on one text of the row."""

    class Config(StrictModel):
        """The rules; 0 turns one off."""

        text: TextName = "all"
        """Which text is judged: the prompt, the completion, or both together."""
        min_words: int = Field(50, ge=0)
        """Fewest words, signs aside."""
        max_words: int = Field(100_000, ge=0)
        """Most words, signs aside."""
        min_mean_word_chars: float = Field(3, ge=0)
        """Least mean length of words, in characters."""
        max_mean_word_chars: float = Field(10, ge=0)
        """Greatest mean length of words, in characters."""
        max_symbol_ratio: float = Field(0.1, ge=0)
        """Most hash signs, and most ellipses, for each word."""
        max_bullet_fraction: float = Field(0.9, ge=0, le=1)
        """Greatest share of lines that begin with a bullet."""
        max_ellipsis_fraction: float = Field(0.3, ge=0, le=1)
        """Greatest share of lines that end with an ellipsis."""
        min_alpha_fraction: float = Field(0.8, ge=0, le=1)
        """Least share of words with a letter; lower it for arithmetic."""
        min_stop_words: int = Field(2, ge=0, le=len(STOP_WORDS))
        """How many of the, be, to, of, and, that, have, with must occur; 0 for texts that are not English."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        text = text_of(row, self.config.text)
        words = text.split()
        return self._why(text, len(words), counts_of_words(words))

    def why_dropped_each(self, rows: Sequence[dict[str, Any]]) -> list[Drop | None]:
        """`why_dropped` of each row."""
        texts = [text_of(row, self.config.text) for row in rows]
        words = Words(texts)
        return list(map(self._why, texts, words.num_T.tolist(), words.counts()))

    def _why(self, text: str, num_words: int, counts: Counts) -> Drop | None:
        return (
            self._by_length(counts) or self._by_symbols(text, num_words) or self._by_lines(text)
            or self._by_words(text, num_words, counts)
        )  # fmt: skip

    def _by_length(self, counts: Counts) -> Drop | None:
        asked, num, num_chars = self.config, counts.num, counts.num_chars
        if num < asked.min_words:
            return Drop("too few words", f"it has {num} words, fewer than {asked.min_words}")
        if asked.max_words and num > asked.max_words:
            return Drop("too many words", f"it has {num} words, more than {asked.max_words}")
        mean = num_chars / num if num else 0.0
        if num and mean < asked.min_mean_word_chars:
            return Drop("words too short", f"its words have {mean:.1f} characters in the mean")
        if asked.max_mean_word_chars and mean > asked.max_mean_word_chars:
            return Drop("words too long", f"its words have {mean:.1f} characters in the mean")
        return None

    def _by_symbols(self, text: str, num_words: int) -> Drop | None:
        most = self.config.max_symbol_ratio
        if not most or not num_words:
            return None
        num = text.count("#")
        if num / num_words > most:
            return Drop("too many hashes", f"it has {num} hash signs in {num_words} words")
        num = sum(map(text.count, _ELLIPSES))
        if num / num_words > most:
            return Drop("too many ellipses", f"it has {num} ellipses in {num_words} words")
        return None

    def _by_lines(self, text: str) -> Drop | None:
        asked = self.config
        num_bullets, num_ellipses = sum(map(text.count, _BULLETS)), sum(map(text.count, _ELLIPSES))
        if not num_bullets and not num_ellipses:
            return None
        lines = text.splitlines()
        num_before = max(0, len(lines) - 1)  # bounds from the signs in the whole text, which are at least those of its lines
        if asked.max_bullet_fraction and num_bullets > asked.max_bullet_fraction * num_before:
            num = sum(line.lstrip().startswith(_BULLETS) for line in lines)
            if num / len(lines) > asked.max_bullet_fraction:
                return Drop("too many bullets", f"{share(num, len(lines))} of its lines begin with a bullet")
        if asked.max_ellipsis_fraction and num_ellipses > asked.max_ellipsis_fraction * num_before:
            num = sum(line.rstrip().endswith(_ELLIPSES) for line in lines)
            if num / len(lines) > asked.max_ellipsis_fraction:
                return Drop("too many broken lines", f"{share(num, len(lines))} of its lines end with an ellipsis")
        return None

    def _by_words(self, text: str, num_words: int, counts: Counts) -> Drop | None:
        asked = self.config
        if num_words and counts.num_alpha / num_words < asked.min_alpha_fraction:
            return Drop("too few letters", f"{share(counts.num_alpha, num_words)} of its words have a letter")
        if asked.min_stop_words and not self._has_stop_words(text):
            return Drop("too few function words", f"fewer than {asked.min_stop_words} of {', '.join(sorted(STOP_WORDS))} occur")
        return None

    def _has_stop_words(self, text: str) -> bool:
        """Most texts show them between blanks; of the others every word is looked at."""
        least = self.config.min_stop_words
        found = itertools.islice((words for words in _BETWEEN_BLANKS if words in text), least)
        return sum(1 for _words in found) == least or len(set(STOP_WORDS).intersection(text.split())) >= least


def counts_of_words(words: list[str]) -> Counts:
    """The counts of one text word by word; `_words` has those of many."""
    real = [word for word in words if any(map(str.isalnum, word))]
    num_alpha = sum(any(map(str.isalpha, word)) for word in words)
    return Counts(len(real), sum(map(len, real)), num_alpha)
