"""Asks an engine for a caller and passes its answer on: bytes as they come when streaming, JSON otherwise.

One HTTP client per event loop. A replica to which no connection can be made is passed over for the next one; once a
request was sent nothing is tried twice, so that a prompt which ends one engine does not end the next.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp

from serving_app.gateway.errors import GatewayError
from serving_app.gateway.routing import BUSY, TABLE, Route, Upstream, opening_of
from serving_app.gateway.stream import StreamFilter
from serving_app.gateway.waking import awake

CONNECT_SECONDS = 10.0
"""Far longer than a connection takes: in a burst of a thousand requests the loop itself comes late by seconds."""
ANSWER_SECONDS = 600.0
"""Longest pause before the first and between two pieces of an answer."""
BREAKS = (aiohttp.ClientError, TimeoutError)
"""What is raised of an engine that cannot be reached, breaks off or is too slow."""
MAX_ERROR_BYTES = 64 << 10
_TOO_LONG = re.compile(r"context length|longer than the model", re.IGNORECASE)
"""How engines say that a prompt does not fit, where they give no code."""
KEEPALIVE_SECONDS = 2.0
"""Shorter than that of engines (uvicorn's 5), so that no request goes out on a connection which the engine is just closing."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()


def client() -> aiohttp.ClientSession:
    """The HTTP client of the running loop; it goes to engines only: no proxy, no redirect, no cookie of its own."""
    loop = asyncio.get_running_loop()
    found = _clients.get(loop)
    if found is None or found.closed:
        found = _clients[loop] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS), timeout=_TIMEOUT, trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
        )  # fmt: skip
    return found


async def close_client() -> None:
    """Closes the running loop's client before its loop ends."""
    if (found := _clients.pop(asyncio.get_running_loop(), None)) is not None:
        await found.close()


class Exchange:
    """One request to one engine: the connection, the counts, and that each is given back exactly once."""

    def __init__(self, route: Route, upstream: Upstream, response: aiohttp.ClientResponse, started: float, share: float) -> None:
        self.route = route
        self.upstream = upstream
        self._share = share
        self._device_seconds: float | None = None
        self._events: StreamFilter | None = None
        self.response = response
        self.started = started
        self.ttft_seconds: float | None = None
        self.status = response.status
        self.usage: dict[str, Any] = {}
        """The counts, once the answer has ended."""
        self._open = True

    @property
    def usage_so_far(self) -> dict[str, Any]:
        """The counts as the engine has told them until now, else as events were seen."""
        if self.usage or self._events is None:
            return self.usage
        return self._events.usage or {"completion_tokens": self._events.num_events}

    @property
    def device_seconds(self) -> float:
        """The share so far of the time of the replica's devices."""
        if self._device_seconds is not None:
            return self._device_seconds
        return (BUSY.share(self.upstream.replica_id) - self._share) * self.upstream.num_devices

    async def json(self) -> dict[str, Any]:
        """The whole answer. Raises GatewayError when the engine refuses, breaks off or answers no JSON."""
        try:
            data = await self.response.read()
            self.ttft_seconds = time.monotonic() - self.started
            found = json.loads(data)
        except (*BREAKS, ValueError) as error:
            raise self._broken(error) from error
        if not isinstance(found, dict):
            raise GatewayError(502, f"The engine of “{self.route.name}” answered something that is no JSON object.")
        self.usage = found.get("usage") or {}
        return found

    async def stream(self, *, keep_usage: bool, keep_counts: bool = False) -> AsyncGenerator[bytes, None]:
        """The server-sent events as the engine sends them; one that breaks off ends with an error event."""
        events = self._events = StreamFilter(keep_usage=keep_usage, keep_counts=keep_counts)
        try:
            async for piece in self.response.content.iter_any():
                if passed := events.feed(piece):
                    if self.ttft_seconds is None and events.has_text:
                        self.ttft_seconds = time.monotonic() - self.started
                    yield passed
            if not events.is_done:
                raise aiohttp.ClientPayloadError("the stream ended before its last event")
        except BREAKS as error:
            problem = self._broken(error)
            yield b"data: " + json.dumps(problem.body()).encode() + b"\n\n"
        finally:
            self.usage = self.usage_so_far

    async def close(self) -> None:
        """Gives the connection back, or cuts it: an engine whose reader is gone stops generating."""
        if self._open:
            self._open = False
            share = BUSY.leave(self.upstream.replica_id) - self._share
            self._device_seconds = share * self.upstream.num_devices
            self.response.close()

    def _broken(self, error: Exception) -> GatewayError:
        found = _broke_off(self.route, error)
        self.status = found.status
        return found


async def open_exchange(route: Route, path: str, body: dict[str, Any]) -> Exchange:
    """Sends the body to the least busy replica and returns its answer, headers read.

    A model that sleeps is woken and waited for. When no replica of the table can be reached the table is read anew, once.
    Raises GatewayError: 503 when no replica is
    ready, 502 when none can be reached or the engine breaks off, 504 when it is too slow, and what the engine refuses (a
    prompt that is too long) with the engine's own sentence.
    """
    if not route.upstreams and route.starts_for_a_request:
        route = await awake(route)
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    opening = opening_of(body)
    exchange = await _ask_one_of(route, route.upstreams, path, content, opening)
    if exchange is None:
        newer = await TABLE.anew(route.name)
        if newer is None or not newer.upstreams:
            raise GatewayError(503, (newer or route).why_not, code="model_not_ready", retry_after=5)
        untried = tuple(upstream for upstream in newer.upstreams if upstream not in route.upstreams)
        exchange = await _ask_one_of(newer, untried, path, content, opening)
    if exchange is None:
        message = f"No replica of “{route.name}” can be reached. Try again in a few seconds; its page says more."
        raise GatewayError(502, message, code="engine_unreachable", retry_after=2)
    if exchange.response.status != HTTPStatus.OK:
        raise (await _refused(exchange)).by(exchange.upstream.revision_id)
    return exchange


async def _ask_one_of(
    route: Route, upstreams: tuple[Upstream, ...], path: str, content: bytes, opening: bytes
) -> Exchange | None:
    """The answer of the first replica to which a connection can be made; None when there is none."""
    started = time.monotonic()
    for upstream in BUSY.order(upstreams, opening):
        share = BUSY.enter(upstream.replica_id)
        try:
            response = await _send(upstream, path, content)
        except BaseException as error:
            BUSY.leave(upstream.replica_id)
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                continue
            if isinstance(error, BREAKS):
                raise _broke_off(route, error).by(upstream.revision_id) from error
            raise
        return Exchange(route, upstream, response, started, share)
    return None


def _broke_off(route: Route, error: Exception) -> GatewayError:
    """What a caller is told of an engine that was asked and did not answer to the end."""
    TABLE.expire()
    if isinstance(error, TimeoutError):
        message = f"“{route.name}” has said nothing for {ANSWER_SECONDS:.0f} s. Ask again, or ask for less."
        return GatewayError(504, message, code="engine_timeout")
    return GatewayError(502, f"The engine of “{route.name}” broke off while it answered. Ask again.", code="engine_broke_off")


async def _send(upstream: Upstream, path: str, content: bytes) -> aiohttp.ClientResponse:
    headers = {
        "Authorization": f"Bearer {upstream.key}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }
    return await client().post(upstream.base_url + path, data=content, headers=headers, allow_redirects=False)


async def _refused(exchange: Exchange) -> GatewayError:
    """The engine's own error: what the caller can mend keeps its status and sentence, the rest is a 502."""
    response, name = exchange.response, exchange.route.name
    try:
        data = b""
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > MAX_ERROR_BYTES:
                break
        found = json.loads(data)
    except (*BREAKS, ValueError):
        found = {}
    finally:
        await exchange.close()
    said = found.get("error", found) if isinstance(found, dict) else {}
    said = said if isinstance(said, dict) else {"message": str(said)}
    message = str(said.get("message") or said.get("detail") or "")[:2000]
    if response.status in {400, 413, 422}:
        code = _text(said.get("code")) or ("context_length_exceeded" if _TOO_LONG.search(message) else None)
        message = message or f"The engine of “{name}” refused the request."
        return GatewayError(400, message, code=code, param=_text(said.get("param")))
    if response.status in {429, 503}:
        message = message or f"The engine of “{name}” is full."
        return GatewayError(response.status, message, code="engine_full", retry_after=1)
    return GatewayError(
        502, f"The engine of “{name}” failed ({response.status}). {message}".strip(), code="engine_error"
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
