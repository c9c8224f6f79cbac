"""The limit that every source of rows has, and the one way to hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import DataError

T = TypeVar("T")


class RowLimit(StrictModel):
    """Limits while reading."""

    max_rows: int = Field(5_000_000, ge=1)
    """Reading stops with an error beyond this many rows."""

    def limited(self, rows: Iterator[T]) -> Iterator[T]:
        """The same rows. Raises DataError at the one that is too many."""
        for number, row in enumerate(rows, start=1):
            self.check(number)
            yield row

    def check(self, num_rows: int) -> None:
        """Raises DataError when so many rows are too many."""
        if num_rows > self.max_rows:
            raise DataError(f"There are more than {self.max_rows} rows; split the file or raise max_rows.", field="file")
