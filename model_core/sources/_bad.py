"""A row that cannot be used, told to whoever reads: refused with its sentence, or left out and counted.

A source's `rows(path, on_bad)` calls `on_bad` for each; when that returns, reading goes on behind the row. What spoils the
whole file (a packing that breaks off, a table without its end) is a plain DataError and always ends the reading.
"""

from __future__ import annotations

from collections.abc import Callable

from model_core.errors import DataError

MAX_EXCERPT_CHARS = 300


class BadRow(DataError):
    """`reason` is the same for all rows with this fault, so that they are counted by it; `excerpt` shows the row."""

    def __init__(self, message: str, *, reason: str = "", excerpt: object = "", field: str = "file") -> None:
        super().__init__(message, field=field)
        self.reason = reason
        self.excerpt = str(excerpt)[:MAX_EXCERPT_CHARS]


OnBad = Callable[[BadRow], None]


def refuse(bad: BadRow) -> None:
    """Ends the reading at the first bad row: raises it as the DataError that it is."""
    raise DataError(bad.message, field=bad.field) from bad
