"""Every door, visited by everybody: anonymous, stranger, viewer, editor, owner, staff; with real rows, each visit taken back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http.response import HttpResponseBase
from django.test.utils import CaptureQueriesContext
from django.urls import URLResolver, get_resolver, resolve

from r1platform.models import Node
from r1platform.rooms import modules
from r1platform.services import project_archive
from r1platform.web import sockets
from serving_app.background import release_connections
from serving_app.gateway import proxying
from serving_app.gateway.auth import forget_callers
from serving_app.gateway.routing import TABLE
from serving_app.gateway.usage import USAGE
from tests.contracts.doors import DOORS, RULES, SOCKETS
from tests.contracts.foreign import FOREIGN
from tests.contracts.test_every_door import URLS
from tests.contracts.world import MARK, ROLES, World, body_of, filled
from tests.sockets import Socket

GATEWAY = "/v1/"
OUTSIDERS = ("stranger", "staff")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WRITES = re.compile(r'^(INSERT INTO|UPDATE|DELETE FROM) "(?!django_session|r1platform_apikey)')
"""A refused visit may keep its session and say when a key was last used."""


@dataclass(frozen=True)
class Door:
    """One row of the table."""

    method: str
    path: str
    body: str
    rule: str

    def __str__(self) -> str:
        return f"{self.method} {self.path} ({self.rule})"


def doors() -> Iterator[Door]:
    for rule, rows in DOORS.items():
        yield from read(rows, rule)


def read(rows: str, rule: str) -> Iterator[Door]:
    for row in rows.strip().splitlines():
        method, path, *body = row.split(maxsplit=2)
        yield Door(method, path, body[0] if body else "", rule)


@pytest.fixture
def world(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Each visit has an event loop of its own, and with it the gateway's client, which is closed here."""
    made, client = list[ClientSession](), proxying.client
    monkeypatch.setattr(proxying, "client", lambda: made.append(client()) or made[-1])  # type: ignore[func-returns-value]
    yield World(node)
    for session in made:
        session.detach()


def routes(resolver: Any = None, prefix: str = "") -> Iterator[str]:
    """Every route, written as a match tells it."""
    for pattern in (resolver or get_resolver()).url_patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, prefix + str(pattern.pattern).removeprefix("^"))
        else:
            yield prefix + str(pattern.pattern).removeprefix("^")


def visit(world: World, role: str, method: str, path: str, body: str = "") -> HttpResponseBase:
    """As a browser that is signed in; the gateway knows keys only."""
    data, headers = body_of(filled(body, world.ids)), {}
    if path.startswith(GATEWAY) and role in world.keys:
        headers["Authorization"] = f"Bearer {world.keys[role]}"
    is_form = method == "POST" and (path == "/api/v1/uploads/" or not path.startswith(("/api/", GATEWAY)))
    kind = {"data": data} if is_form else {"data": json.dumps(data), "content_type": "application/json"}
    client = world.signed_in(role)
    answer: Any = getattr(client, method.lower())(filled(path, world.ids), headers=headers, **({} if method == "GET" else kind))
    return answer  # type: ignore[no-any-return]


def met(answer: HttpResponseBase) -> str:
    """What a visitor meets, in the words of RULES."""
    code = answer.status_code
    to_sign_in = code == 302 and re.match(r"/(sign-in|admin/login)/\?next=", answer["Location"])
    if code == 401 or to_sign_in:
        return "out"
    return str(code) if code in {403, 404, 405} or code >= 500 else "in"


def text_of(answer: Any) -> str:
    content = b"".join(answer.streaming_content) if answer.streaming and not answer.is_async else getattr(answer, "content", b"")
    return content.decode(errors="replace").lower()


def wrong(world: World, door: Door, role: str, expected: str) -> str:
    """What is not as the rule says, if anything."""
    is_refused = expected not in {"in", "out"}
    with transaction.atomic(), CaptureQueriesContext(connection) if is_refused else nullcontext([]) as queries:
        answer = visit(world, role, door.method, door.path, door.body)
        told = text_of(answer)
        transaction.set_rollback(True)
    found = "400" if expected == "400" and answer.status_code == 400 else met(answer)
    if found != expected:
        return f"{door} let {role} meet {found} ({answer.status_code}), not {expected}: {told[:200]}"
    if is_refused and (written := [one["sql"] for one in queries if WRITES.match(one["sql"])]):
        return f"{door} refused {role} and wrote {written[0][:120]}"
    if role in OUTSIDERS and MARK in told and door.rule != "public":
        return f"{door} told {role}: …{told[max(0, told.index(MARK) - 80):][:160]}"
    return ""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.django_db
def test_everybody_meets_what_the_rule_says(world: World, role: str) -> None:
    """Refusals write nothing; nothing that an outsider is told holds a name of the project."""
    expected = {rule: outcomes[ROLES.index(role)] for rule, outcomes in RULES.items()}
    visited = [door for door in doors() if expected[door.rule] and not door.path.startswith(GATEWAY)]
    found = [told for door in visited if (told := wrong(world, door, role, expected[door.rule]))]
    assert not found, f"{len(found)} doors\n" + "\n".join(found)


@pytest.mark.django_db
def test_an_archived_project_refuses_every_change_also_of_its_owner(world: World) -> None:
    project_archive(project=world.project, by=world.owner)
    changes = [door for door in doors() if door.rule in {"project write", "named write", "form write"}]
    found = [told for door in changes if (told := wrong(world, door, "owner", "403"))]
    assert len(changes) > 100 and not found, f"{len(found)} doors\n" + "\n".join(found)


@pytest.mark.django_db
def test_an_id_of_others_is_answered_as_one_that_is_none(world: World, node: Node) -> None:
    """In a query, a body or a form, of somebody who has all rights in a project of their own."""
    world.furnish_the_stranger(node)
    known, found = dict(world.ids), []
    none = {name: pk if name.startswith("own_") else 10**9 + number if isinstance(pk, int) else "none" * 5
            for number, (name, pk) in enumerate(known.items())}  # fmt: skip
    for door in read(FOREIGN, "foreign"):
        answers = []
        for world.ids in (known, none):
            with transaction.atomic():
                answer = visit(world, "stranger", door.method, door.path, door.body)
                answers.append((answer.status_code, told_apart(answer, world.ids)))
                transaction.set_rollback(True)
        if answers[0] != answers[1] or MARK in answers[0][1] or answers[0][0] >= 500:
            found.append(f"{door}: {answers[0]} and {answers[1]}")
    assert not found, "\n".join(found)


def told_apart(answer: Any, ids: dict[str, Any]) -> str:
    """An answer without the ids that were asked for, which are allowed to stand in it, and without what each page has anew."""
    told = text_of(answer) if "json" in answer.get("Content-Type", "") else ""
    asked = "|".join(sorted({str(pk).lower() for pk in ids.values()}, key=len, reverse=True))
    return re.sub(rf"(?<!\d)(?:{asked})(?!\d)", "·", told)


@pytest.mark.django_db
def test_every_route_and_method_has_a_row(world: World) -> None:
    """A route without a row, and a method without one that is not answered with 405, is a door that nobody has thought of."""
    rows: dict[str, set[str]] = {}
    examples: dict[str, str] = {}
    for door in doors():
        path = filled(door.path, world.ids).partition("?")[0]
        rows.setdefault(resolve(path).route, set()).add(door.method)
        examples[resolve(path).route] = path
    assert not {route for route in routes() if not route.startswith("admin/")} - set(rows), "no row in tests/contracts/doors.py"
    found = []
    for route, methods in rows.items():
        for method in set(METHODS) - methods:
            with transaction.atomic():
                answer = visit(world, "owner", method, examples[route])
                transaction.set_rollback(True)
            if answer.status_code != 405:
                found.append(f"{method} {route}: {answer.status_code}")
    assert not found, "no row in tests/contracts/doors.py\n" + "\n".join(found)


@pytest.mark.django_db
def test_no_page_of_the_admin_opens_to_who_is_no_staff(world: World) -> None:
    paths = [path for name, path in URLS if path.startswith("/admin/")]
    assert len(paths) > 100
    for path in paths:
        assert world.signed_in("owner").get(path).status_code == 403, path
        assert world.signed_in("owner").post(path).status_code == 403, path


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing kept from another test; what was used is not written."""
    monkeypatch.setattr(USAGE, "_start", lambda: None)
    TABLE.__init__()  # type: ignore[misc]
    forget_callers()
    yield
    USAGE._waiting.clear()
    release_connections()


@pytest.mark.django_db(transaction=True)
async def test_models_and_sockets_are_for_whom_the_rule_says(node: Node, gateway: None) -> None:
    """They look from threads of their own, so their rows are really there. Behind the model of the walk no engine answers."""
    world = await sync_to_async(World)(node)
    for number, role in enumerate(ROLES):
        for door in (door for door in doors() if door.path.startswith(GATEWAY) and RULES[door.rule][number]):
            answer = await sync_to_async(visit)(world, role, door.method, door.path, door.body)
            found = "in" if answer.status_code in {502, 503} else met(answer)
            assert found == RULES[door.rule][number], (str(door), role, answer.status_code)
            assert role not in OUTSIDERS or door.rule != "signed in" or MARK not in text_of(answer), (str(door), role)
        for path, outcomes in SOCKETS.items():
            assert await heard(world, role, path) == outcomes[number], (path, role)


async def heard(world: World, role: str, path: str) -> str:
    """`in` for a first message, else the code with which the socket closes."""
    socket = Socket(sockets(), filled(path, world.ids), client=world.signed_in(role) if role != "anonymous" else None)
    assert await socket.open()
    if SOCKETS[path][ROLES.index(role)] != "in":
        return str(await socket.closing_code())
    assert (await socket.receive())["type"] in {"hello", "snapshot"}
    await socket.close()
    return "in"


def test_every_socket_has_a_row() -> None:
    rows = [re.sub(r"\$\w+", "1", path).lstrip("/") for path in SOCKETS]
    known = [route.pattern for module in modules("routing", having="websocket_urlpatterns") for route in module.websocket_urlpatterns]
    assert known and not [str(pattern) for pattern in known if not any(pattern.match(row) for row in rows)]
