"""Plain text, plain or packed: each paragraph is a row with the field `text`.

Paragraphs end at an empty line, as in the text dumps of web crawls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._lines import lines


@registered
class Text:
    """One paragraph a row."""

    is_file = True

    class Config(StrictModel):
        """Limits while reading."""

        max_rows: int = Field(5_000_000, ge=1)
        """Reading stops with an error beyond this many paragraphs."""
        max_chars: int = Field(1_000_000, ge=1)
        """Longest paragraph."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path) -> Iterator[dict[str, str]]:
        """Yields {"text": paragraph}. Raises DataError naming the line."""
        held: list[str] = []
        size = num_rows = 0
        for number, line in enumerate(lines(path), start=1):
            if line.strip():
                held.append(line)
                size += len(line) + 1
                if size > self.config.max_chars:
                    limit = f"{self.config.max_chars} characters"
                    raise DataError(f"The paragraph at line {number} is longer than {limit}.", field="file")
            elif held:
                num_rows += 1
                if num_rows > self.config.max_rows:
                    raise DataError(f"The file has more than {self.config.max_rows} rows; split it or raise max_rows.")
                yield {"text": "\n".join(held)}
                held, size = [], 0
        if held:
            yield {"text": "\n".join(held)}
