"""Asks an engine for a caller and passes its answer on: bytes as they come when streaming, JSON otherwise.

One HTTP client per event loop. A replica that cannot be reached before it has answered is passed over for the next one;
after the first byte nothing is tried twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from serving_app.gateway.errors import GatewayError
from serving_app.gateway.routing import BUSY, TABLE, Route, Upstream
from serving_app.gateway.stream import StreamFilter

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 600.0
"""Longest pause before the first and between two pieces of an answer."""
MAX_ERROR_BYTES = 64 << 10
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

    async def stream(self, *, keep_usage: bool) -> AsyncGenerator[bytes, None]:
        """The server-sent events as the engine sends them; one that breaks off ends with an error event."""
        events = StreamFilter(keep_usage=keep_usage)
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
        TABLE.expire()
        slow = isinstance(error, httpx.TimeoutException)
        self.status = 504 if slow else 502
        if slow:
            message = f"“{self.route.name}” has said nothing for {ANSWER_SECONDS:.0f} s. Ask again, or ask for less."
            return GatewayError(504, message, code="engine_timeout")
        message = f"The engine of “{self.route.name}” broke off while it answered. Ask again."
        return GatewayError(502, message, code="engine_broke_off")


async def open_exchange(route: Route, path: str, body: dict[str, Any]) -> Exchange:
    """Sends the body to the least busy replica and returns its answer, headers read.

    Raises GatewayError: 503 when no replica is ready, 502 when none can be reached, 504 when it is too slow, and what
    the engine refuses (a prompt that is too long) with the engine's own sentence.
    """
    if not route.upstreams:
        raise GatewayError(503, route.why_not, code="model_not_ready", retry_after=5)
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    started = time.monotonic()
    for upstream in BUSY.order(route.upstreams):
        try:
            response = await _send(upstream, path, content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError):
            TABLE.expire()
            continue
        except httpx.TimeoutException as error:
            message = f"“{route.name}” has said nothing for {ANSWER_SECONDS:.0f} s. Ask again, or ask for less."
            raise GatewayError(504, message, code="engine_timeout") from error
        exchange = Exchange(route, upstream, response, started)
        if response.status_code != httpx.codes.OK:
            raise await _refused(exchange)
        return exchange
    message = f"No replica of “{route.name}” can be reached. Try again in a few seconds; its page says more."
    raise GatewayError(502, message, code="engine_unreachable", retry_after=2)


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
        param = said.get("param")
        return GatewayError(
            400,
            message or f"The engine of “{name}” refused the request.",
            code=_text(said.get("code")),
            param=_text(param),
        )
    if response.status_code in {429, 503}:
        message = message or f"The engine of “{name}” is full."
        return GatewayError(response.status_code, message, code="engine_full", retry_after=1)
    return GatewayError(
        502, f"The engine of “{name}” failed ({response.status_code}). {message}".strip(), code="engine_error"
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
