"""Apache Parquet, read batch by batch within limits; columns of raw bytes, such as images, are left out.

Source: https://parquet.apache.org/docs/file-format/; the limits are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.errors import DataError
from model_core.registry import registered
from model_core.sources._lines import MAX_RATIO, MAX_UNPACKED_BYTES

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 256
_PLAIN = (str, bool, int, float, type(None))


@registered
class Parquet:
    """Rows of a table; dates and decimals become text."""

    is_file = True

    class Config(StrictModel):
        """Limits while reading."""

        max_rows: int = Field(5_000_000, ge=1)
        """Reading stops with an error beyond this many rows."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def rows(self, path: Path) -> Iterator[dict[str, Any]]:
        """Yields each row by its column names. Raises DataError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                self._check(file, path)
                names = _readable(file.schema_arrow)
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
                    for row in batch.to_pylist():
                        yield {name: _plain(value) for name, value in row.items()}
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DataError(f"The file is no Parquet file that can be read: {words[:300]}", field="file") from error

    def _check(self, file: Any, path: Path) -> None:
        found = file.metadata
        if found.num_rows > self.config.max_rows:
            raise DataError(f"The file has {found.num_rows} rows, more than {self.config.max_rows}; split it or raise max_rows.")
        size = sum(found.row_group(index).total_byte_size for index in range(found.num_row_groups))
        if size > MAX_UNPACKED_BYTES or size > max(1 << 20, MAX_RATIO * path.stat().st_size):
            raise DataError(f"The file unpacks to more than {MAX_RATIO} times its size; refused.", field="file")


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


def _plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
