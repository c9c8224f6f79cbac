"""Reads a growing file of lines from a byte offset; a line that is still being written is left for the next time."""

from __future__ import annotations

from pathlib import Path


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
