"""Reads growing files: whole lines from a byte offset, a piece of a log, the last words of a process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_LAST_LINES = 6
_LAST_CHARS = 900
MAX_LOG_BYTES = 64 << 10
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


def read_log(path: Path, *, offset: int | None = None, max_bytes: int = MAX_LOG_BYTES) -> dict[str, Any]:
    """Text from `offset`, without one the newest part; `next_offset` goes on from there. A missing file is empty."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - max_bytes) if offset is None else min(max(offset, 0), size)
            file.seek(start)
            data = file.read(max_bytes)
    except FileNotFoundError:
        return {"text": "", "next_offset": 0, "size": 0}
    whole = data if len(data) < max_bytes else data[: data.rfind(b"\n") + 1] or data
    return {"text": whole.decode(errors="replace").replace("\x00", ""), "next_offset": start + len(whole), "size": size}
