"""Database calls from event loops: a few threads that keep their connection, apart from Django's per-request ones.

The gateway and the playground are loops that must never wait for a query; they send a function here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections

T = TypeVar("T")
NUM_THREADS = 4
_pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="serving-db")


async def in_database(function: Callable[..., T], *args: Any) -> T:
    """Runs `function` in a database thread; twice when its connection was broken, so it must bear that."""
    return await asyncio.get_running_loop().run_in_executor(_pool, call, function, *args)


def call(function: Callable[..., T], *args: Any) -> T:
    """`function(*args)` on this thread's connection, a new one when the old one is broken."""
    try:
        return function(*args)
    except (OperationalError, InterfaceError):
        connections.close_all()
        return function(*args)


def release_connections() -> None:
    """Closes the connection of every thread; they come back by themselves. For tests, which drop the database."""
    barrier = threading.Barrier(NUM_THREADS)

    def close() -> None:
        connections.close_all()
        barrier.wait(timeout=10)

    for future in [_pool.submit(close) for _ in range(NUM_THREADS)]:
        future.result()
