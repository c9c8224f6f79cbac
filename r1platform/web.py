"""Puts the ASGI application together: static files, sockets behind an origin check, Django for the rest."""

from __future__ import annotations

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

STATIC_PREFIX = "/static"


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
        else:
            await pages(scope, receive, send)

    return ProtocolTypeRouter({"http": http, "websocket": sockets()})


def sockets() -> Any:
    routes = [route for module in modules("routing", having="websocket_urlpatterns") for route in module.websocket_urlpatterns]
    return AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes)))
