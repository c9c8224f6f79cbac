"""Puts the ASGI application together: static files, sockets behind an origin check, the gateway
behind a limit of its bodies, Django for the rest."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.staticfiles import finders
from django.core.exceptions import SuspiciousFileOperation
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from r1platform.rooms import modules
from serving_app.gateway.body import MAX_BYTES
from serving_app.gateway.errors import GatewayError

STATIC_PREFIX = "/static"
GATEWAY_PREFIX = "/v1/"
LINGER_BYTES, LINGER_SECONDS = 64 << 20, 10.0
"""So much of a body that is too long is still read, so that its sender sees the answer."""


class FoundFiles(StaticFiles):
    """Serves what Django's finders find: our own files and those inside Python packages; always revalidated."""

    def __init__(self) -> None:
        super().__init__(check_dir=False)

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        try:
            found = finders.find(path)
        except SuspiciousFileOperation:
            found = None
        return (found, Path(found).stat()) if isinstance(found, str) else ("", None)

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def web(pages: Any, gateway: Any) -> Any:
    """The whole application around Django's handlers of pages and of the gateway."""
    static = Starlette(routes=[Mount(STATIC_PREFIX, FoundFiles())])

    async def http(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(STATIC_PREFIX + "/"):
            await static(scope, receive, send)
        elif scope["path"].startswith(GATEWAY_PREFIX):
            await capped(gateway, scope, receive, send)
        else:
            await pages(scope, receive, send)

    return ProtocolTypeRouter({"http": http, "websocket": sockets()})


async def capped(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Calls `app` with a body of at most MAX_BYTES; a longer one is answered with 413 as soon as that is clear.

    Whoever may ask is only known after the body was read, so nobody may have it read without end.
    """
    length = dict(scope["headers"]).get(b"content-length", b"0")
    num_bytes = int(length) if length.isdigit() else 0

    async def counted() -> Any:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        return message if num_bytes <= MAX_BYTES else {"type": "http.disconnect"}

    if num_bytes <= MAX_BYTES:
        num_bytes = 0
        await app(scope, counted, send)
    if num_bytes > MAX_BYTES:
        await send_too_long(receive, send)


async def send_too_long(receive: Any, send: Any) -> None:
    """The whole answer first, then the rest of the body is read away.

    A connection that is closed with bytes unread is reset, and the client loses the answer that was on its way.
    """
    error = GatewayError(413, f"The body is longer than {MAX_BYTES} bytes. Send less.")
    body = json.dumps(error.body()).encode()
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), length]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            await read_away(receive)
    await send({"type": "http.response.body", "body": b""})


async def read_away(receive: Any) -> None:
    """Reads until the body ends, the client leaves or LINGER_BYTES have come."""
    num_bytes = 0
    while num_bytes <= LINGER_BYTES:
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def sockets() -> Any:
    routes = [route for module in modules("routing", having="websocket_urlpatterns") for route in module.websocket_urlpatterns]
    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))
