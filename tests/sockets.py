"""Talks to a socket in process. The one of channels.testing needs daphne, which nothing else here does."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from asgiref.testing import ApplicationCommunicator
from channels.auth import AuthMiddlewareStack
from django.test import Client

SECONDS = 5.0


class Socket(ApplicationCommunicator):
    """A browser's socket: with a client's session when one is given. `app` is a consumer, or everything."""

    def __init__(self, app: Any, path: str, *, client: Client | None = None, origin: str = "http://localhost") -> None:
        parts = urlsplit(path)
        headers = [(b"origin", origin.encode()), (b"host", b"localhost")]
        if client is not None:
            headers.append((b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()))
        scope = {
            "type": "websocket",
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": headers,
            "subprotocols": [],
        }
        super().__init__(app, scope)

    @classmethod
    def of(cls, consumer: Any, path: str = "/", *, client: Client | None = None, kwargs: Any = None) -> Socket:
        """A socket straight to a consumer class, with what its route would have taken out of the path."""
        socket = cls(AuthMiddlewareStack(consumer.as_asgi()), path, client=client)
        socket.scope["url_route"] = {"args": (), "kwargs": kwargs or {}}
        return socket

    async def open(self) -> bool:
        """Whether the handshake was accepted."""
        await self.send_input({"type": "websocket.connect"})
        return (await self.receive_output(SECONDS))["type"] == "websocket.accept"

    async def send(self, message: Any) -> None:
        await self.send_input({"type": "websocket.receive", "text": json.dumps(message)})

    async def receive(self, seconds: float = SECONDS) -> Any:
        """The next message; fails when the socket closes instead."""
        message = await self.receive_output(seconds)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def closing_code(self, seconds: float = SECONDS) -> int:
        """Reads on until it closes."""
        while True:
            message = await self.receive_output(seconds)
            if message["type"] == "websocket.close":
                return int(message.get("code") or 1000)

    async def close(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(SECONDS)
