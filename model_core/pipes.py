"""Reading from a process that may be late: a line by a deadline."""

from __future__ import annotations

import os
import selectors
import time


def line_within(descriptor: int, seconds: float) -> bytes | None:
    """The next line with its end; None when it is not whole in time or the other end is closed. Nothing else may read there."""
    until, read = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not read.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                return None
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return None
            read += chunk
    return read
