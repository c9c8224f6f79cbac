"""Leaves out lines that are no sentences, and drops rows that are no running text.

Source: Raffel et al., “Exploring the Limits of Transfer Learning” (T5, arXiv 1910.10683), section 2.2, and the code that made
C4 for the rules on long words and policies. The list of bad words is not applied. Sentences are counted by their closing
signs; initials such as “J. R. R.” end none.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Any, Literal

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.filters._judging import Drop, text_of
from model_core.registry import registered

_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_END_OF_LINE = (".", "?", "!", '"', "'")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_SIGNS = re.compile("([.?!。．？！｡‼⁇⁈⁉‽؟۔।॥።፧፨։܀܁܂᙮។៕᠃᠉⸮﹒﹖﹗⸼]+)[\"'”]?")


@registered
class C4:
    """Keeps lines of at least three words that end like a sentence, and rows with enough sentences left."""

    class Config(StrictModel):
        """The rules; 0 turns a number off."""

        text: Literal["prompt", "completion"] = "prompt"
        """Which text is judged."""
        rewrite: bool = True
        """Leaves the lines that break a rule out of the text; off: only whole rows are dropped."""
        min_sentences: int = Field(5, ge=0)
        """Fewest sentences in the lines that are left."""
        min_words_per_line: int = Field(3, ge=0)
        """Shorter lines are left out."""
        max_word_chars: int = Field(1000, ge=0)
        """Lines with a longer word are left out."""
        need_end: bool = True
        """Leaves out lines that do not end in a full stop, question or exclamation mark or a quotation mark."""
        refuse_javascript: bool = True
        """Leaves out lines that speak of JavaScript."""
        refuse_policies: bool = True
        """Leaves out lines about cookies, privacy policies and terms of use."""
        refuse_curly_brackets: bool = True
        """Drops rows with a curly bracket in a line that is otherwise kept; turn it off for LaTeX and code."""
        refuse_lorem_ipsum: bool = True
        """Drops rows with filler text."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        self._least, self._need_end = self.config.min_words_per_line, self.config.need_end
        self._longest = self.config.max_word_chars or sys.maxsize

    def why_dropped(self, row: dict[str, Any]) -> Drop | None:
        """The rule and a sentence, or None to keep the row, whose text is then without the lines that break a rule."""
        text = text_of(row, self.config.text)
        if not text:
            return None if self.config.text == "completion" else Drop("too few sentences", "the text is empty")
        kept = self._kept_lines(text)
        if isinstance(kept, Drop):
            return kept
        least = self.config.min_sentences
        num = _num_sentences(kept, enough=least)
        if num < least:
            return Drop("too few sentences", f"{num} sentences are left in {len(kept)} lines, fewer than {least}")
        left = "\n".join(kept).strip()
        if self.config.rewrite and left != text:
            row[self.config.text] = left
        return None

    def _kept_lines(self, text: str) -> list[str] | Drop:
        asked, low = self.config, text.lower()
        banned = [words for words in _POLICIES if asked.refuse_policies and words in low]
        has_script = asked.refuse_javascript and "javascript" in low
        is_filler = asked.refuse_lorem_ipsum and "lorem ipsum" in low
        has_bracket = asked.refuse_curly_brackets and "{" in text
        lines = [line for line in map(self._sentence_like, text.splitlines()) if line is not None]
        if not (banned or has_script or is_filler or has_bracket):
            return lines
        kept = []
        for line in lines:
            low = line.lower()
            if is_filler and "lorem ipsum" in low:
                return Drop("lorem ipsum", "it holds filler text")
            if has_script and "javascript" in low:
                continue
            if has_bracket and "{" in line:
                return Drop("curly bracket", f"a line holds a curly bracket: “{line[:80]}”")
            if not any(words in low for words in banned):
                kept.append(line)
        return kept

    def _sentence_like(self, line: str) -> str | None:
        """The line without its citations, or None when it does not look like a sentence."""
        line = line.strip()
        longest, least = self._longest, self._least
        if len(line.split(None, least)) < least or (longest < len(line) and any(len(word) > longest for word in line.split())):
            return None
        if "[" in line:
            line = _CITATION.sub("", line)
        if self._need_end and (not line.endswith(_END_OF_LINE) or line.endswith("...")):
            return None
        return line


def _num_sentences(kept: list[str], *, enough: int) -> int:
    """Sentences of all lines, each at least one; stops counting at `enough`."""
    if len(kept) >= enough:
        return len(kept)
    found = 0
    for line in kept:
        found += num_sentences(line, enough=enough - found)
        if found >= enough:
            break
    return found


def num_sentences(line: str, *, enough: int) -> int:
    """Sentences of a line, at least one; stops counting at `enough`.

    A sentence is something, closing signs, and perhaps a quotation mark. The full stop of an initial closes none, unless
    nothing else does.
    """
    found, start, is_open = 0, 0, False
    for signs in _SIGNS.finditer(line):
        first, end = signs.span(1)
        first += first == start
        if first == end:
            continue
        if end - first == 1 and line[first] == "." and first > start and unicodedata.category(line[first - 1]) == "Lu":
            is_open = True
            continue
        found, start, is_open = found + 1, signs.end(), False
        if found == enough:
            break
    return max(1, found + is_open)
