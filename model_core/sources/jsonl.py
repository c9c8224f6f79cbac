"""JSON Lines, plain or packed with gzip or zstandard, read row by row within limits.

Source: https://jsonlines.org; the limits are ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._lines import lines

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@registered
class Jsonl:
    """One JSON object a line."""

    is_file = True

    class Config(StrictModel):
        """Limits while reading."""

        max_rows: int = Field(5_000_000, ge=1)
        """Reading stops with an error beyond this many rows."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yields each object. Raises DataError naming the line."""
        for number, line in enumerate(lines(path), start=1):
            if not line.strip():
                continue
            if number > self.config.max_rows:
                raise DataError(f"The file has more than {self.config.max_rows} rows; split it or raise max_rows.")
            try:
                row = json.loads(line, parse_float=_finite, parse_constant=_finite)
                if _SURROGATE.search(line):
                    json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise DataError(f"Line {number} is not JSON that can be kept: {_words(error)}.", field="file") from error
            if not isinstance(row, dict):
                raise DataError(f"Line {number} is a {type(row).__name__}, not an object with named fields.", field="file")
            yield row


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a \\u escape is half of a character (a lone surrogate)"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
