"""JSON Lines, plain or packed with gzip or zstandard, read row by row within limits.

Source: https://jsonlines.org; the limits are ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._limits import RowLimit
from model_core.sources._lines import Block, block_lines, blocks, lines


@registered
class Jsonl:
    """One JSON object a line."""

    is_file = True
    Config = RowLimit

    def __init__(self, config: RowLimit) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields each object; empty lines are none. A bad row names its line."""
        return self.config.limited(objects(path, on_bad))

    def blocks(self, path: Path) -> Iterator[Block]:
        """The file in pieces, for `block_rows`; `max_rows` is then held by whoever counts their rows."""
        return blocks(path)

    @staticmethod
    def block_rows(block: Block, on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a block with the numbers of their lines."""
        return _objects(block_lines(block, on_bad), on_bad)


def objects(path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON Lines."""
    for _number, row in _objects(lines(path, on_bad), on_bad):
        yield row


def _objects(numbered: Iterable[tuple[int, str]], on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered:
        if not line or line.isspace():
            continue
        try:
            row = _object(line, number)
        except BadRow as bad:
            on_bad(bad)
        else:
            yield number, row


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = _read(line)
        if "\\ud" in line or "\\uD" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"Line {number} is not JSON that can be kept: {_words(error)}."
        raise BadRow(message, reason="not JSON", excerpt=line) from error
    if not isinstance(row, dict):
        message = f"Line {number} is a {type(row).__name__}, not an object with named fields."
        raise BadRow(message, reason="not an object", excerpt=line)
    return row


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


_read = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a \\u escape is half of a character (a lone surrogate)"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
