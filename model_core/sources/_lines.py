"""Numbered text lines of a file that may be packed, with limits that hold while unpacking: no bomb, no endless line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from model_core.errors import DataError
from model_core.sources._bad import BadRow, OnBad, refuse
from model_core.sources._gathering import gathered

MAX_LINE_BYTES = 4 << 20
MAX_UNPACKED_BYTES = 20 << 30
MAX_RATIO = 200
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BLOCK_BYTES = 1 << 20
"""Lines are handed on in blocks of about so many bytes."""
_PIECE_BYTES = 1 << 12
"""Packed bytes unpacked at once; a piece of a bomb becomes at most 128 MiB before the ratio is looked at."""
Block = list[tuple[int, bytes]]
"""Lines as they stand in the file, with their numbers from 1; of one that is too long only its beginning."""


def lines(path: Path, on_bad: OnBad = refuse) -> Iterator[tuple[int, str]]:
    """Gives (number, text without its end), numbers from 1; a mark of byte order at the start is left out.

    A line that is too long or not UTF-8 is a bad row: its number is then missing. Raises DataError for a file that is
    missing, unpacks to too much, breaks off or is damaged.
    """
    return block_lines(_numbered(path), on_bad)


def blocks(path: Path) -> Iterator[Block]:
    """The same lines undecoded, many at once, so that `block_lines` can do the rest in another process. Raises DataError.

    What ends the file early is raised behind the lines before it.
    """
    return gathered(_numbered(path), lambda numbered: len(numbered[1]), enough=BLOCK_BYTES)


def block_lines(block: Iterable[tuple[int, bytes]], on_bad: OnBad) -> Iterator[tuple[int, str]]:
    """What `lines` gives for the lines of a block."""
    for number, chunk in block:
        text = _text(chunk, number, on_bad)
        if text is not None:
            yield number, text


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    with _opened(path) as raw:
        try:
            for number, chunk in _chunks(raw, path.stat().st_size):
                yield number, chunk
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(f"The packed file breaks off or is damaged after line {number}: {error}.", field="file") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"“{path.name}” cannot be opened: {error.strerror}.", field="file") from error


def _chunks(raw: BinaryIO, packed_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines as bytes; of one that is too long its beginning, and the rest is read over. Never holds a longer one."""
    stream = _unpacked(raw)
    number = total = 0
    is_packed = stream is not raw
    while chunk := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        total += len(chunk)
        if len(chunk) <= MAX_LINE_BYTES:
            _check_size(total, packed_bytes, is_packed=is_packed)
            yield number, chunk
            continue
        yield number, chunk
        while chunk and not chunk.endswith(b"\n"):
            _check_size(total, packed_bytes, is_packed=is_packed)
            chunk = stream.readline(MAX_LINE_BYTES + 1)
            total += len(chunk)


def _check_size(total: int, packed_bytes: int, *, is_packed: bool) -> None:
    if total > MAX_UNPACKED_BYTES or (is_packed and total > 1 << 20 and total > MAX_RATIO * packed_bytes):
        raise DataError(f"The file unpacks to more than {MAX_RATIO} times its size; refused.", field="file")


def _text(chunk: bytes, number: int, on_bad: OnBad) -> str | None:
    if len(chunk) > MAX_LINE_BYTES:
        message = f"Line {number} is longer than {MAX_LINE_BYTES >> 20} MiB."
        on_bad(BadRow(message, reason="line too long", excerpt=chunk[:400].decode("utf-8", "replace")))
        return None
    try:
        return chunk.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        bad = BadRow(f"Line {number} is not UTF-8: {error.reason} at byte {error.start}.", reason="not UTF-8",
                     excerpt=chunk[:400].decode("utf-8", "replace"))  # fmt: skip
        bad.__cause__ = error
        on_bad(bad)
        return None


def _unpacked(raw: BinaryIO) -> BinaryIO:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == _GZIP:
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD:
        return cast("BinaryIO", io.BufferedReader(_Zstandard(raw), 1 << 16))
    return raw


class _Zstandard(io.RawIOBase):
    """Unpacks one frame after another, and unlike the library's own reader notices a last one that has no end."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_inside = False
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: object) -> int:
        view = memoryview(cast("bytearray", into))
        while not self._left:
            piece = self._raw.read(_PIECE_BYTES)
            if not piece:
                if self._is_inside:
                    raise EOFError("its last frame has no end")
                return 0
            self._left = memoryview(self._unpack(piece))
        num = min(len(view), len(self._left))
        view[:num], self._left = self._left[:num], self._left[num:]
        return num

    def _unpack(self, piece: bytes) -> bytes:
        parts = []
        while piece:
            self._is_inside = True
            parts.append(self._frame.decompress(piece))
            piece = b""
            if self._frame.eof:
                piece = self._frame.unused_data
                self._frame, self._is_inside = zstandard.ZstdDecompressor().decompressobj(), False
        return b"".join(parts)
