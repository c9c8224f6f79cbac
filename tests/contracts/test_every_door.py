"""Deny by default: every URL, method and socket refuses an anonymous caller, whoever added it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from r1platform.rooms import modules
from r1platform.web import sockets
from tests.sockets import Socket

OPEN = {
    "livez": "health of the process, no data",
    "readyz": "health of the database, no data",
    "metrics": "loopback or a key; tested in test_health",
    "sign-in": "the door itself",
    "sign-in-link": "the door itself",
    "invitation": "the door of who was invited; its token is the key",
    "admin:login": "the door itself",
    "admin:jsi18n": "translated words of the admin's scripts",
    "admin/(?P<url>.*)$": "redirects to the sign-in of the admin",
}
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
REFUSALS = {401, 403, 404, 405}
VALUES = {"int": "1", "str": "x", "slug": "x", "uuid": "00000000-0000-0000-0000-000000000000", "path": "x"}


def every_url(resolver: Any = None, prefix: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """Name and an example path of each URL pattern."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = f"{space}{pattern.namespace}:" if pattern.namespace else space
            yield from every_url(pattern, route, inner)
        elif isinstance(pattern, URLPattern):
            yield (space + pattern.name if pattern.name else route), "/" + example(route)


def example(route: str) -> str:
    """A path that the route matches."""
    route = re.sub(r"\(\?P<\w+>(?:[^()]|\([^()]*\))*\)", "1", route)
    route = re.sub(r"<(?:(\w+):)?\w+>", lambda match: VALUES.get(match[1] or "str", "1"), route)
    return route.replace("^", "").replace("$", "").replace("\\Z", "").replace("\\.", ".").replace("/?", "/")


URLS = sorted(set(every_url()))


def test_the_walk_finds_the_doors() -> None:
    names = {name for name, _ in URLS}
    assert {"sign-in", "project-list", "api-key-list", "schema", "docs", "admin:index"} <= names


@pytest.mark.django_db
def test_every_url_and_method_refuses_the_anonymous() -> None:
    """401, 403, 404 or 405 for programs; pages may send to the sign-in. Nothing answers 2xx, nothing breaks."""
    client = Client(raise_request_exception=False)
    open_doors = []
    for name, path in URLS:
        for method in METHODS:
            answer = getattr(client, method)(path)
            to_sign_in = answer.status_code == 302 and ("/sign-in/" in answer["Location"] or "/login/" in answer["Location"])
            if name not in OPEN and answer.status_code not in REFUSALS and not to_sign_in:
                open_doors.append(f"{method.upper()} {path} ({name}): {answer.status_code}")
    assert not open_doors, "\n".join(open_doors)


@pytest.mark.django_db
def test_open_doors_break_on_nothing() -> None:
    client = Client(raise_request_exception=False)
    for name, path in URLS:
        if name in OPEN:
            for method in METHODS:
                assert getattr(client, method)(path).status_code < 500, (method, path)


SOCKETS = sorted({"/" + example(str(route.pattern)) for module in modules("routing", having="websocket_urlpatterns")
                  for route in module.websocket_urlpatterns})  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", SOCKETS)
async def test_every_socket_refuses_a_foreign_page(path: str, client_alice: Client) -> None:
    """A page of another site cannot open a socket with the user's cookie."""
    for origin in ("http://evil.example", "null"):
        assert not await Socket(sockets(), path, client=client_alice, origin=origin).open()
