"""Text lines of a file that may be packed, with limits that hold while unpacking: no bomb, no endless line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from model_core.errors import DataError

MAX_LINE_BYTES = 4 << 20
MAX_UNPACKED_BYTES = 20 << 30
MAX_RATIO = 200
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def lines(path: Path) -> Iterator[str]:
    """Yields lines without their ends. Raises DataError naming the line and the limit or the broken byte."""
    packed, total, number = path.stat().st_size, 0, 0
    with path.open("rb") as raw:
        stream = _unpacked(raw)
        try:
            while chunk := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                total += len(chunk)
                if len(chunk) > MAX_LINE_BYTES:
                    raise DataError(f"Line {number} is longer than {MAX_LINE_BYTES >> 20} MiB.", field="file")
                if total > MAX_UNPACKED_BYTES or (stream is not raw and total > 1 << 20 and total > MAX_RATIO * packed):
                    raise DataError(f"The file unpacks to more than {MAX_RATIO} times its size; refused.", field="file")
                yield _text(chunk, number)
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(f"The packed file breaks off or is damaged after line {number}: {error}.", field="file") from error


def _unpacked(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == _GZIP:
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD:
        return cast("BinaryIO", io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw)))
    return raw


def _text(chunk: bytes, number: int) -> str:
    try:
        return chunk.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"Line {number} is not UTF-8: {error.reason} at byte {error.start}.", field="file") from error
