"""Apache Parquet, read batch by batch within limits; columns of raw bytes, such as images, are left out.

Source: https://parquet.apache.org/docs/file-format/; the limits are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._limits import RowLimit
from model_core.sources._lines import MAX_RATIO, MAX_UNPACKED_BYTES
from model_core.sources._values import plain

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 256


@registered
class Parquet:
    """Rows of a table; dates and decimals become text."""

    is_file = True
    Config = RowLimit

    def __init__(self, config: RowLimit) -> None:
        self.config = config

    def rows(self, path: Path, on_bad: OnBad = refuse) -> Iterator[dict[str, Any]]:
        """Yields each row by its column names; one whose text is not UTF-8 is bad. Raises DataError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                self._check(file, path)
                number = 0
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=_readable(file.schema_arrow)):
                    yield from _rows(batch, number, on_bad)
                    number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(f"The file is no Parquet file that can be read: {words[:300]}", field="file") from error

    def _check(self, file: Any, path: Path) -> None:
        found, most = file.metadata, self.config.max_rows
        if found.num_rows > most:
            raise DataError(f"The file has {found.num_rows} rows, more than {most}; split it or raise max_rows.", field="file")
        size = sum(found.row_group(index).total_byte_size for index in range(found.num_row_groups))
        if size > MAX_UNPACKED_BYTES or size > max(1 << 20, MAX_RATIO * path.stat().st_size):
            raise DataError(f"The file unpacks to more than {MAX_RATIO} times its size; refused.", field="file")


def _rows(batch: pa.RecordBatch, before: int, on_bad: OnBad) -> Iterator[dict[str, Any]]:
    try:
        found = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _rows(batch.slice(index, 1), before + index, on_bad)
            return
        bad = BadRow(f"Row {before + 1} is not UTF-8: {error.reason}.", reason="not UTF-8", excerpt=error.object[:400])
        bad.__cause__ = error
        on_bad(bad)
        return
    for row in found:
        yield {name: plain(value) for name, value in row.items()}


def _readable(schema: pa.Schema) -> list[str]:
    """Names of the columns that hold no raw bytes. Raises DataError when there is none."""
    import pyarrow as pa

    kinds = pa.types
    names = [
        field.name for field in schema
        if not (kinds.is_binary(field.type) or kinds.is_large_binary(field.type) or kinds.is_fixed_size_binary(field.type))
    ]  # fmt: skip
    if not names:
        raise DataError("The file has no column that holds text or numbers.", field="file")
    return names
