"""Which rank printed a line, where several write one log: every line that Python writes begins with the mark of its rank.

What libraries write past Python has no mark. Imports without torch.
"""

from __future__ import annotations

import atexit
import sys
from typing import Any, TextIO, cast


def rank_mark(rank: int) -> str:
    """What a line of this rank begins with."""
    return f"[rank {rank}] "


def mark_output(rank: int) -> None:
    """From now on every line of this process's output and errors begins with its mark."""
    sys.stdout, sys.stderr = marked(sys.stdout, rank), marked(sys.stderr, rank)


def marked(stream: TextIO, rank: int) -> TextIO:
    """`stream` with marks; a line is written when it is whole, the last one at the end of the process."""
    made = _Marked(stream, rank_mark(rank))
    atexit.register(made.finish)
    return cast("TextIO", made)


class _Marked:
    def __init__(self, stream: TextIO, mark: str) -> None:
        self._stream, self._mark, self._rest = stream, mark, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._mark}{line}\n" for line in lines))
        return len(text)

    def finish(self) -> None:
        """Writes a line that was not ended."""
        if self._rest:
            self.write("\n")
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
