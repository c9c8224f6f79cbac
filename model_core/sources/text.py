"""Plain text, plain or packed: each paragraph, or each document, is a row with the field `text`.

Paragraphs end at an empty line, as in the text dumps of web crawls; documents at a line of your choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._limits import RowLimit
from model_core.sources._lines import lines


@registered
class Text:
    """One paragraph or document a row."""

    is_file = True

    class Config(RowLimit):
        """What a row is, and limits while reading."""

        unit: Literal["paragraph", "document"] = "paragraph"
        """What a row is: a paragraph, which ends at an empty line, or a document, which keeps its empty lines."""
        separator: str = Field("", max_length=100)
        """Line between two documents, for example `<|endoftext|>`; empty: the file is one document."""
        max_chars: int = Field(1_000_000, ge=1)
        """Longest paragraph or document."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, str]]:
        """Yields {"text": …}. One that is too long, or holds a line that cannot be read, is bad and named by its line."""
        return self.config.limited(self._rows(path, on_bad))

    def _rows(self, path: Path, on_bad: OnBad) -> Iterator[dict[str, str]]:
        held: list[str] = []
        size, is_whole = 0, True

        def spoil(bad: BadRow) -> None:
            nonlocal is_whole
            is_whole = False
            on_bad(bad)

        for number, line in lines(path, spoil):
            if self._is_end(line):
                yield from _row(held, is_whole=is_whole)
                held, size, is_whole = [], 0, True
            elif is_whole:
                held.append(line)
                size += len(line) + 1
                if size > self.config.max_chars:
                    spoil(self._too_long(number, held))
        yield from _row(held, is_whole=is_whole)

    def _is_end(self, line: str) -> bool:
        if self.config.unit == "paragraph":
            return not line or line.isspace()
        return bool(self.config.separator) and line == self.config.separator

    def _too_long(self, number: int, held: list[str]) -> BadRow:
        message = f"The {self.config.unit} at line {number} is longer than {self.config.max_chars} characters."
        return BadRow(message, reason=f"{self.config.unit} too long", excerpt=held[0])


def _row(held: list[str], *, is_whole: bool) -> Iterator[dict[str, str]]:
    text = "\n".join(held).strip("\n")
    if is_whole and text and not text.isspace():
        yield {"text": text}
