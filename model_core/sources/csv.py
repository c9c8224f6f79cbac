"""Comma- or tab-separated values with a header, plain or packed, read row by row within limits.

Source: RFC 4180; what separates the names of the header separates the values: comma, semicolon, tab or bar.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._lines import MAX_LINE_BYTES, lines


@registered
class Csv:
    """Values with a header line; a field in quotes may hold line breaks."""

    is_file = True

    class Config(StrictModel):
        """Limits while reading."""

        max_rows: int = Field(5_000_000, ge=1)
        """Reading stops with an error beyond this many rows."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yields each row by the names of the header. Raises DataError naming the line."""
        csv.field_size_limit(MAX_LINE_BYTES)
        text = (line + "\n" for line in lines(path))
        first = next(text, "")
        names = next(csv.reader([first.lstrip("\ufeff")], delimiter=_delimiter(first)), [])
        if not names or len(set(names)) != len(names):
            raise DataError("The first line must name the columns, each once.", field="file")
        reader = csv.reader(text, delimiter=_delimiter(first), strict=True)
        try:
            for number, values in enumerate(reader, start=1):
                if not values:
                    continue
                if number > self.config.max_rows:
                    raise DataError(f"The file has more than {self.config.max_rows} rows; split it or raise max_rows.")
                if len(values) != len(names):
                    raise DataError(
                        f"Line {reader.line_num + 1} has {len(values)} values for {len(names)} columns.", field="file"
                    )
                yield dict(zip(names, values, strict=True))
        except csv.Error as error:
            raise DataError(f"Line {reader.line_num + 1} cannot be read: {error}.", field="file") from error


def _delimiter(header: str) -> str:
    """The sign that stands most often in the header, outside of quotes; a comma among equals."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)
