"""Puts the ASGI application together: static files, sockets behind an origin check, the gateway
behind a limit of its bodies, Django for the rest."""

from __future__ import annotations

import json
import os
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


def web(pages: Any) -> Any:
    """The whole application around Django's."""
    static = Starlette(routes=[Mount(STATIC_PREFIX, FoundFiles())])

    async def http(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith(STATIC_PREFIX + "/"):
            await static(scope, receive, send)
        elif scope["path"].startswith(GATEWAY_PREFIX):
            await capped(pages, scope, receive, send)
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
        await send_too_long(send)


async def send_too_long(send: Any) -> None:
    error = GatewayError(413, f"The body is longer than {MAX_BYTES} bytes. Send less.")
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body()).encode()})


def sockets() -> Any:
    routes = [route for module in modules("routing", having="websocket_urlpatterns") for route in module.websocket_urlpatterns]
    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))
