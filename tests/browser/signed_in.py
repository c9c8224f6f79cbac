"""Pages of a signed-in person in a real browser, with the socket in the hands of the test."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import BrowserContext, Page, WebSocketRoute

SETTLED = """() => document.readyState === "complete"
    && ![...document.querySelectorAll("[data-note]")].some((one) => one.offsetParent && one.getBoundingClientRect().top < innerHeight
        && one.textContent.startsWith("Loading"))"""
"""What is in sight has what it asked the server for."""


class Site:
    """Pages of `alice` at `url`; `sockets` are the connections so far, `errors` what the browser complained about."""

    def __init__(self, profile: BrowserContext, url: str, user: User) -> None:
        self.url = url
        client = Client()
        client.force_login(user)
        self.context = profile
        cookie = client.cookies["sessionid"].value
        self.context.add_cookies([{"name": "sessionid", "value": cookie, "url": url}])
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.sockets: list[WebSocketRoute] = []
        self.hello: dict[str, Any] = {"type": "hello", "last_id": 0, "state": {}}
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.route_web_socket("**/ws/**", self._socket)

    def _socket(self, route: WebSocketRoute) -> None:
        self.sockets.append(route)
        route.send(json.dumps(self.hello))

    def leave(self) -> None:
        """Closes the pages and leaves nothing of them in the profile but its cache."""
        for page in self.context.pages:
            if page.url.startswith(self.url):
                page.evaluate("() => localStorage.clear()")
            page.close()
        self.context.clear_cookies()

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page

    def send(self, **message: Any) -> None:
        """Sends over the newest connection of the page."""
        self.sockets[-1].send(json.dumps(message))
