"""How the engine's HTTP answers what goes wrong, and notices that nobody waits for an answer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from model_core.errors import EngineError, ModelCoreError
from model_core.serving.backend import say
from model_core.serving.bodies import Refused

T = TypeVar("T")
CLIENT_LEFT = 499


class ClientLeft(Exception):
    """Nobody reads the answer any more."""


def logged(refused: Refused) -> Refused:
    """The same, written to the log as well."""
    say(f"A request failed with {refused.status}: {refused.message}")
    return refused


def refusal(error: ModelCoreError) -> Refused:
    """What the caller can mend is a 400; an engine that is full or has failed is a 503."""
    if isinstance(error, EngineError):
        return Refused(503, error.message, code="engine_unavailable")
    return Refused(400, error.message, param=error.field)


async def unless_gone(work: Coroutine[Any, Any, T], request: Request) -> T:
    """The result of `work`. Raises ClientLeft, with `work` cancelled, when the reader goes away before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    both: list[asyncio.Future[Any]] = [task, gone]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        gone.cancel()
        if task.cancel():
            await asyncio.wait([task])


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
