"""Reads growing files: whole lines from a byte offset, a piece of a log, what a log says of something, last words."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

_LAST_LINES = 6
_LAST_CHARS = 900
MAX_LOG_BYTES = 64 << 10
MAX_FOUND = 1000
MAX_SEARCHED_BYTES = 128 << 20
_PIECE_BYTES = 1 << 20
_LINE_BYTES = 4096
GLANCE_SECONDS = 0.02


class LineTooLong(Exception):
    """A single line is longer than the read limit; the writer is broken."""


def read_lines(path: Path, offset: int, *, max_bytes: int = 4 << 20) -> tuple[list[bytes], int]:
    """Whole lines after `offset`, without their ends, and the offset to go on from.

    A missing file reads as empty. Raises LineTooLong when `max_bytes` hold no whole line.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(max_bytes)
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    if end == 0:
        if len(data) == max_bytes:
            raise LineTooLong(f"{path} has a line of more than {max_bytes} bytes at offset {offset}.")
        return [], offset
    return data[: end - 1].split(b"\n"), offset + end


def wait_for_growth(path: Path, offset: int, *, seconds: float) -> bool:
    """Whether the file has more than `offset` bytes within `seconds`; a missing file has none.

    Looks first after a moment, so that a loop around a line that is never finished does not spin.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(GLANCE_SECONDS, left))
        if path.exists() and path.stat().st_size > offset:
            return True
    return False


def last_words(log: Path) -> str:
    """The last lines of a log; empty when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            lines = file.read().decode(errors="replace").replace("\x00", "").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])[-_LAST_CHARS:]


def read_log(
    path: Path, *, offset: int | None = None, before: int | None = None, max_bytes: int = MAX_LOG_BYTES
) -> dict[str, Any]:
    """Text from `offset`; without one whole lines that end at `before`, without either the newest ones.

    `offset` is where it begins and `next_offset` where it goes on. A missing file is empty.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = size if before is None else min(max(before, 0), size)
            start = max(0, end - max_bytes) if offset is None else min(max(offset, 0), size)
            file.seek(start)
            data = file.read(max_bytes if offset is not None else end - start)
    except FileNotFoundError:
        return {"text": "", "offset": 0, "next_offset": 0, "size": 0}
    if offset is None and start > 0:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    elif len(data) == max_bytes:
        data = data[: data.rfind(b"\n") + 1] or data
    text = data.decode(errors="replace").replace("\x00", "")
    return {"text": text, "offset": start, "next_offset": start + len(data), "size": size}


def search_log(
    path: Path, text: str, *, begins: str = "", max_lines: int = MAX_FOUND, max_bytes: int = MAX_SEARCHED_BYTES
) -> dict[str, Any]:
    """Lines that hold `text`, whatever its case, and begin with `begins`: the newest `max_lines`, each with its offset.

    `num_found` counts all of them in the newest `num_searched` bytes of `size`. A missing file has none.
    """
    needle, found, num_found = text.lower().encode(), deque[dict[str, Any]](maxlen=max_lines), 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = start = max(0, size - max_bytes)
            file.seek(start)
            while lines := file.readlines(_PIECE_BYTES):
                for line in lines:
                    if needle in line.lower() and line.startswith(begins.encode()):
                        num_found += 1
                        found.append({"offset": at, "text": _shown(line)})
                    at += len(line)
    except FileNotFoundError:
        return {"lines": [], "num_found": 0, "num_searched": 0, "size": 0}
    return {"lines": list(found), "num_found": num_found, "num_searched": size - start, "size": size}


def _shown(line: bytes) -> str:
    return line[:_LINE_BYTES].decode(errors="replace").rstrip("\n").replace("\x00", "")
