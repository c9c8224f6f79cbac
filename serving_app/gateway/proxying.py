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
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from serving_app.gateway.errors import GatewayError
from serving_app.gateway.routing import BUSY, TABLE, Route, Upstream, opening_of
from serving_app.gateway.stream import StreamFilter
from serving_app.gateway.waking import awake

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 600.0
"""Longest pause before the first and between two pieces of an answer."""
MAX_ERROR_BYTES = 64 << 10
_TOO_LONG = re.compile(r"context length|longer than the model", re.IGNORECASE)
"""How engines say that a prompt does not fit, where they give no code."""
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30)
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()


def client() -> httpx.AsyncClient:
    """The HTTP client of the running loop; it goes to engines only: no proxy, no redirect, no cookie of its own."""
    loop = asyncio.get_running_loop()
    found = _clients.get(loop)
    if found is None or found.is_closed:
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        found = httpx.AsyncClient(timeout=timeout, limits=_LIMITS, trust_env=False, follow_redirects=False)
        _clients[loop] = found
    return found


async def close_client() -> None:
    """Closes the running loop's client before its loop ends."""
    if (found := _clients.pop(asyncio.get_running_loop(), None)) is not None:
        await found.aclose()


class Exchange:
    """One request to one engine: the connection, the counts, and that each is given back exactly once."""

    def __init__(self, route: Route, upstream: Upstream, response: httpx.Response, started: float) -> None:
        self.route = route
        self.upstream = upstream
        self.response = response
        self.started = started
        self.ttft_seconds: float | None = None
        self.status = response.status_code
        self.usage: dict[str, Any] = {}
        self._open = True

    async def json(self) -> dict[str, Any]:
        """The whole answer. Raises GatewayError when the engine refuses, breaks off or answers no JSON."""
        try:
            data = await self.response.aread()
            self.ttft_seconds = time.monotonic() - self.started
            found = json.loads(data)
        except (httpx.HTTPError, ValueError) as error:
            raise self._broken(error) from error
        if not isinstance(found, dict):
            raise GatewayError(502, f"The engine of “{self.route.name}” answered something that is no JSON object.")
        self.usage = found.get("usage") or {}
        return found

    async def stream(self, *, keep_usage: bool, keep_counts: bool = False) -> AsyncGenerator[bytes, None]:
        """The server-sent events as the engine sends them; one that breaks off ends with an error event."""
        events = StreamFilter(keep_usage=keep_usage, keep_counts=keep_counts)
        try:
            async for piece in self.response.aiter_raw():
                if passed := events.feed(piece):
                    if self.ttft_seconds is None and events.has_text:
                        self.ttft_seconds = time.monotonic() - self.started
                    yield passed
            if not events.is_done:
                raise httpx.RemoteProtocolError("the stream ended before its last event")
        except httpx.HTTPError as error:
            problem = self._broken(error)
            yield b"data: " + json.dumps(problem.body()).encode() + b"\n\n"
        finally:
            self.usage = events.usage or {"completion_tokens": events.num_events}

    async def close(self) -> None:
        """Gives the connection back, or cuts it: an engine whose reader is gone stops generating."""
        if self._open:
            self._open = False
            BUSY.running[self.upstream.replica_id] -= 1
            await self.response.aclose()

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
    if exchange.response.status_code != httpx.codes.OK:
        raise (await _refused(exchange)).by(exchange.upstream.revision_id)
    return exchange


async def _ask_one_of(
    route: Route, upstreams: tuple[Upstream, ...], path: str, content: bytes, opening: bytes
) -> Exchange | None:
    """The answer of the first replica to which a connection can be made; None when there is none."""
    started = time.monotonic()
    for upstream in BUSY.order(upstreams, opening):
        try:
            response = await _send(upstream, path, content)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
        except httpx.HTTPError as error:
            raise _broke_off(route, error).by(upstream.revision_id) from error
        return Exchange(route, upstream, response, started)
    return None


def _broke_off(route: Route, error: Exception) -> GatewayError:
    """What a caller is told of an engine that was asked and did not answer to the end."""
    TABLE.expire()
    if isinstance(error, httpx.TimeoutException):
        message = f"“{route.name}” has said nothing for {ANSWER_SECONDS:.0f} s. Ask again, or ask for less."
        return GatewayError(504, message, code="engine_timeout")
    return GatewayError(502, f"The engine of “{route.name}” broke off while it answered. Ask again.", code="engine_broke_off")


async def _send(upstream: Upstream, path: str, content: bytes) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {upstream.key}",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }
    http = client()
    request = http.build_request("POST", upstream.base_url + path, content=content, headers=headers)
    BUSY.running[upstream.replica_id] += 1
    try:
        return await http.send(request, stream=True)
    except BaseException:
        BUSY.running[upstream.replica_id] -= 1
        raise


async def _refused(exchange: Exchange) -> GatewayError:
    """The engine's own error: what the caller can mend keeps its status and sentence, the rest is a 502."""
    response, name = exchange.response, exchange.route.name
    try:
        data = b""
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > MAX_ERROR_BYTES:
                break
        found = json.loads(data)
    except (httpx.HTTPError, ValueError):
        found = {}
    finally:
        await exchange.close()
    said = found.get("error", found) if isinstance(found, dict) else {}
    said = said if isinstance(said, dict) else {"message": str(said)}
    message = str(said.get("message") or said.get("detail") or "")[:2000]
    if response.status_code in {400, 413, 422}:
        code = _text(said.get("code")) or ("context_length_exceeded" if _TOO_LONG.search(message) else None)
        message = message or f"The engine of “{name}” refused the request."
        return GatewayError(400, message, code=code, param=_text(said.get("param")))
    if response.status_code in {429, 503}:
        message = message or f"The engine of “{name}” is full."
        return GatewayError(response.status_code, message, code="engine_full", retry_after=1)
    return GatewayError(
        502, f"The engine of “{name}” failed ({response.status_code}). {message}".strip(), code="engine_error"
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
