"""A file piece by piece for an answer that is sent while it is read; nothing of it is held, no other request waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

PIECE_BYTES = 1 << 20


async def pieces(path: Path, num_bytes: int) -> AsyncIterator[bytes]:
    """The first `num_bytes` of a file. Raises OSError when it has become shorter."""
    left = num_bytes
    with path.open("rb") as source:
        while left:
            piece = await asyncio.to_thread(source.read, min(left, PIECE_BYTES))
            if not piece:
                raise OSError(f"{path.name} became shorter while it was sent.")
            left -= len(piece)
            yield piece
