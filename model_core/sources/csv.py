"""Comma- or tab-separated values with a header, plain or packed, read row by row within limits.

Source: RFC 4180; what separates the names of the header separates the values: comma, semicolon, tab or bar.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._limits import RowLimit
from model_core.sources._lines import MAX_LINE_BYTES, lines


@registered
class Csv:
    """Values with a header line; a field in quotes may hold line breaks."""

    is_file = True
    Config = RowLimit

    def __init__(self, config: RowLimit) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields each row by the names of the header; empty lines are none. A bad row names its line.

        Raises DataError when the first line names no columns.
        """
        return self.config.limited(self._rows(path, on_bad))

    def _rows(self, path: Path, on_bad: OnBad) -> Iterator[dict[str, Any]]:
        csv.field_size_limit(MAX_LINE_BYTES)
        numbered = lines(path, on_bad)
        _number, first = next(numbered, (1, ""))
        sign = _delimiter(first)
        names = next(csv.reader([first], delimiter=sign), [])
        if not names or len(set(names)) != len(names):
            raise DataError("The first line must name the columns, each once.", field="file")
        for number, values, shown in _records(numbered, sign, on_bad):
            if len(values) == len(names):
                yield dict(zip(names, values, strict=True))
            elif values:
                message = f"Line {number} has {len(values)} values for {len(names)} columns."
                on_bad(BadRow(message, reason="wrong number of values", excerpt=shown))


def _records(numbered: Iterator[tuple[int, str]], sign: str, on_bad: OnBad) -> Iterator[tuple[int, list[str], str]]:
    """(number of the last line, values, first line) of each record.

    Behind a record that cannot be read it goes on at the record's second line: a broken quote spoils one line, however
    many lines were looked at in the search for its end.
    """
    taken = _Taken(numbered)
    while True:
        reader = csv.reader(taken, delimiter=sign, strict=True)
        try:
            for values in reader:
                yield taken.lines[-1][0], values, taken.lines[0][1]
                taken.lines.clear()
            return
        except csv.Error as error:
            message = f"Line {taken.lines[-1][0]} cannot be read: {error}."
            bad = BadRow(message, reason="broken quotes", excerpt=taken.lines[0][1])
            bad.__cause__ = error
            on_bad(bad)
            taken.give_back()


class _Taken:
    """Lines for a reader of records; remembers those of the record being read, so that they can be read again."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered = numbered
        self._again: deque[tuple[int, str]] = deque()
        self.lines: list[tuple[int, str]] = []
        self._num_chars = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = self._again.popleft() if self._again else next(self._numbered)
        has_gap = bool(self.lines) and number - self.lines[-1][0] > 1
        self._num_chars = len(line) if not self.lines else self._num_chars + len(line)
        self.lines.append((number, line))
        if has_gap:
            raise csv.Error(f"line {number - 1}, inside its quotes, cannot be read")
        if self._num_chars > MAX_LINE_BYTES:
            raise csv.Error(f"its quotes have no end within {MAX_LINE_BYTES >> 20} MiB")
        return line + "\n"

    def give_back(self) -> None:
        """All but the first line of the record will be read again."""
        self._again.extendleft(reversed(self.lines[1:]))
        self.lines.clear()


def _delimiter(header: str) -> str:
    """The sign that stands most often in the header, outside of quotes; a comma among equals."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)
