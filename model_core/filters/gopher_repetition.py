"""Drops texts that repeat themselves: lines, paragraphs, or sequences of words.

Source: Rae et al., “Scaling Language Models: … Gopher” (arXiv 2112.11446), appendix A1.1 and table A1; the bounds are those of
the table. Words are what stands between white space, as in Dolma (arXiv 2402.00159).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, TextName, share, text_of
from model_core.filters._sequences import suspects
from model_core.filters._words import Words
from model_core.registry import registered

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
"""Words in sequence → greatest share of characters in the most frequent sequence."""
DUPLICATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Words in sequence → greatest share of characters in sequences that came before."""
_PARAGRAPH, _LINE = re.compile(r"\n{2,}"), re.compile(r"\n+")


@registered
class GopherRepetition:
    """The repetition rules of Gopher on one text of the row."""

    class Config(StrictModel):
        """The rules; 0 turns one off."""

        text: TextName = "all"
        """Which text is judged: the prompt, the completion, or both together."""
        max_line_fraction: float = Field(0.3, ge=0, le=1)
        """Greatest share of lines that came before."""
        max_paragraph_fraction: float = Field(0.3, ge=0, le=1)
        """Greatest share of paragraphs that came before."""
        max_line_char_fraction: float = Field(0.2, ge=0, le=1)
        """Greatest share of characters in lines that came before."""
        max_paragraph_char_fraction: float = Field(0.2, ge=0, le=1)
        """Greatest share of characters in paragraphs that came before."""
        check_top: bool = True
        """Applies the bounds on the most frequent 2, 3 and 4 words: 20, 18 and 16 % of the characters."""
        check_duplicated: bool = True
        """Applies the bounds on repeated sequences of 5 to 10 words: 15 % down to 10 % of the characters."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row."""
        text = text_of(row, self.config.text)
        if not text:
            return None if self.config.text == "completion" else Drop("empty", "the text is empty")
        return self._by_parts(text) or self._sequences(text)

    def why_dropped_each(self, rows: Sequence[dict[str, Any]]) -> list[Drop | None]:
        """`why_dropped` of each row; only texts that may repeat themselves are looked at word by word."""
        texts = [text_of(row, self.config.text) for row in rows]
        top, duplicated = TOP if self.config.check_top else {}, DUPLICATED if self.config.check_duplicated else {}
        suspicious = suspects(Words(texts), np.array(list(map(len, texts)), np.int64), top, duplicated).tolist()
        return [
            self.why_dropped(row) if is_suspect or not text or _has_equal_lines(text) else None
            for row, text, is_suspect in zip(rows, texts, suspicious, strict=True)
        ]

    def _by_parts(self, text: str) -> Drop | None:
        asked = self.config
        return (
            _repeated(_PARAGRAPH.split(text.strip()), text, "paragraphs", asked.max_paragraph_fraction,
                      asked.max_paragraph_char_fraction)
            or _repeated(_LINE.split(text), text, "lines", asked.max_line_fraction, asked.max_line_char_fraction)
        )  # fmt: skip

    def _sequences(self, text: str) -> Drop | None:
        words = text.split()
        highest = 2
        for num, most in TOP.items():
            if not self.config.check_top or len(words) < num:
                break
            if highest > 1:
                sequence, highest = Counter(_sequences(words, num)).most_common(1)[0]
            else:
                sequence = tuple(words[:num])
            part = len(" ".join(sequence)) * highest
            if part / len(text) > most:
                return Drop(f"frequent {num} words", f"“{' '.join(sequence)[:80]}” makes {share(part, len(text))} of the text")
        return self._duplicated(text, words) if self.config.check_duplicated and highest > 1 else None

    def _duplicated(self, text: str, words: list[str]) -> Drop | None:
        for num, most in DUPLICATED.items():
            sequences = list(_sequences(words, num))
            if len(set(sequences)) == len(sequences):
                return None
            part = _repeated_chars(sequences, num)
            if part / len(text) > most:
                return Drop(f"repeated {num} words", f"{share(part, len(text))} of the text is {num} words that came before")
        return None


def _has_equal_lines(text: str) -> bool:
    """False only when no two lines, and so no two paragraphs, are equal. Empty ones count at both ends of the text."""
    lines = text.split("\n")
    if len(set(lines)) == len(lines):
        return False
    lines = [line for line in lines if line]
    return len(set(lines)) < len(lines) or (text[0] == "\n" and text[-1] == "\n")


def _sequences(words: list[str], num: int) -> zip[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(num)), strict=False)


def _repeated(parts: list[str], text: str, name: str, most: float, most_chars: float) -> Drop | None:
    """By the share of parts that came before, and of their characters."""
    seen: set[str] = set(parts)
    if len(seen) == len(parts):
        return None
    num, num_chars = _again(parts)
    if most and num / len(parts) > most:
        return Drop(f"repeated {name}", f"{share(num, len(parts))} of its {name} came before")
    if most_chars and num_chars / len(text) > most_chars:
        return Drop(f"repeated {name} by characters", f"{share(num_chars, len(text))} of it is {name} that came before")
    return None


def _again(parts: Sequence[str]) -> tuple[int, int]:
    seen, num, num_chars = set[str](), 0, 0
    for part in parts:
        if part in seen:
            num, num_chars = num + 1, num_chars + len(part)
        seen.add(part)
    return num, num_chars


def _repeated_chars(sequences: list[tuple[str, ...]], num: int) -> int:
    """Characters of the words in sequences that came before; behind one, the search goes on at its end."""
    seen, num_chars, place = set[tuple[str, ...]](), 0, 0
    while place < len(sequences):
        sequence = sequences[place]
        if sequence in seen:
            num_chars += sum(map(len, sequence))
            place += num
        else:
            seen.add(sequence)
            place += 1
    return num_chars
