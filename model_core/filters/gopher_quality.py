"""Drops texts that are no prose: too short, words too long, mostly signs, bullets or dots, no function words.

Source: Rae et al., “Scaling Language Models: … Gopher” (arXiv 2112.11446), appendix A1.1. Words are what stands between white
space, as in Dolma (arXiv 2402.00159); tokenizers that split signs off count more of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, TextName, share, text_of
from model_core.registry import registered

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS, _ELLIPSES = ("•", "-"), ("...", "…")
_ALPHA, _CHARS = 22, 44
"""Places of the packed counts: words with a letter or digit, words with a letter, characters of the former."""
_ONE_COUNT = (1 << 22) - 1
_MAX_REMEMBERED = 200_000


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
        self._counts = _Counts()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        text = text_of(row, self.config.text)
        words = text.split()
        packed = self._counts.of(words)
        num, num_alpha, num_chars = packed & _ONE_COUNT, packed >> _ALPHA & _ONE_COUNT, packed >> _CHARS
        return (
            self._by_length(num, num_chars) or self._by_symbols(text, len(words)) or self._by_lines(text)
            or self._by_words(words, num_alpha)
        )  # fmt: skip

    def _by_length(self, num: int, num_chars: int) -> Drop | None:
        asked = self.config
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
        asked, lines = self.config, text.splitlines()
        if asked.max_bullet_fraction and any(map(text.count, _BULLETS)):
            num = sum(line.lstrip().startswith(_BULLETS) for line in lines)
            if num / len(lines) > asked.max_bullet_fraction:
                return Drop("too many bullets", f"{share(num, len(lines))} of its lines begin with a bullet")
        if asked.max_ellipsis_fraction and any(map(text.count, _ELLIPSES)):
            num = sum(line.rstrip().endswith(_ELLIPSES) for line in lines)
            if num / len(lines) > asked.max_ellipsis_fraction:
                return Drop("too many broken lines", f"{share(num, len(lines))} of its lines end with an ellipsis")
        return None

    def _by_words(self, words: list[str], num_alpha: int) -> Drop | None:
        asked = self.config
        if words and num_alpha / len(words) < asked.min_alpha_fraction:
            return Drop("too few letters", f"{share(num_alpha, len(words))} of its words have a letter")
        if asked.min_stop_words and len(STOP_WORDS.intersection(words)) < asked.min_stop_words:
            return Drop("too few function words", f"fewer than {asked.min_stop_words} of {', '.join(sorted(STOP_WORDS))} occur")
        return None


class _Counts(dict[str, int]):
    """Word → its packed counts, remembered; the sum over a text's words gives all its counts at once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        is_word = any(map(str.isalnum, word))
        packed = (is_word | any(map(str.isalpha, word)) << _ALPHA | len(word) << _CHARS) if is_word else 0
        self[word] = packed
        return packed

    def of(self, words: list[str]) -> int:
        return sum(map(self.__getitem__, words))
