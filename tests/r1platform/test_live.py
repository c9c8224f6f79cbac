"""Live messages: they arrive, a lost one harms nobody, and a socket ends when its right to listen ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.db import DatabaseError, InterfaceError, OperationalError
from django.test import Client

from r1platform.access import for_user, role_in
from r1platform.lib import live
from r1platform.lib.live import ANONYMOUS, BROKEN, FORBIDDEN, NOT_FOUND, LiveConsumer, Refused, apublish, publish
from r1platform.models import Membership, Project, Role
from r1platform.services import member_set, project_create
from tests.sockets import Socket

pytestmark = pytest.mark.django_db(transaction=True)


class ProjectConsumer(LiveConsumer):
    """What the apps' consumers look like."""

    project_id = 0

    def authorise(self, user: User) -> list[str]:
        project = Project.objects.filter(pk=self.project_id).first()
        if project is None:
            raise Refused(NOT_FOUND)
        if role_in(user, project) is None:
            raise Refused(FORBIDDEN)
        return [f"overview.{project.pk}"]

    async def opened(self) -> None:
        await self.send_json({"type": "hello"})


def socket_of(client: Client | None, project_id: int) -> Socket:
    return Socket.of(type("Bound", (ProjectConsumer,), {"project_id": project_id}), client=client)


async def open_socket(client: Client, project: Project) -> Socket:
    socket = socket_of(client, project.pk)
    assert await socket.open()
    assert await socket.receive() == {"type": "hello"}
    return socket


@pytest.fixture
def anything(client_alice: Client, client_bob: Client, client_charlie: Client, project: Project) -> dict[str, Any]:
    return {"alice": client_alice, "bob": client_bob, "charlie": client_charlie, "project": project}


async def test_a_message_reaches_members_only(anything: dict[str, Any]) -> None:
    project = anything["project"]
    for who, code in ((None, ANONYMOUS), (anything["charlie"], FORBIDDEN)):
        refused = socket_of(who, project.pk)
        await refused.open()
        assert await refused.closing_code() == code
    missing = socket_of(anything["alice"], 0)
    await missing.open()
    assert await missing.closing_code() == NOT_FOUND
    for who in ("alice", "bob"):
        socket = await open_socket(anything[who], project)
        await database_sync_to_async(publish)(f"overview.{project.pk}", "state", run=7)
        assert await socket.receive() == {"type": "state", "run": 7}
        await socket.close()


async def test_redis_carries_it_between_processes_too(anything: dict[str, Any], redis_url: str) -> None:
    socket = await open_socket(anything["alice"], anything["project"])
    await apublish(f"overview.{anything['project'].pk}", "state", run=8)
    assert await socket.receive() == {"type": "state", "run": 8}
    await socket.close()


@pytest.mark.parametrize("how", ["role", "sign_out", "password", "inactive"])
async def test_a_socket_ends_with_the_right_to_listen(
    anything: dict[str, Any], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.05)
    client, project = anything["bob"], anything["project"]
    socket = await open_socket(client, project)
    assert await socket.receive() == {"type": "ping"}

    def revoke() -> None:
        bob = User.objects.get(username="bob")
        if how == "role":
            member_set(project=project, user=bob, role=None, by=User.objects.get(username="alice"))
            assert not Membership.objects.filter(user=bob).exists()
        elif how == "sign_out":
            client.logout()
        elif how == "password":
            bob.set_password("another long sentence")
            bob.save()
        else:
            User.objects.filter(pk=bob.pk).update(is_active=False)

    await database_sync_to_async(revoke)()
    assert await socket.closing_code() == ANONYMOUS


def test_a_lost_message_is_counted_and_harms_nobody(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["unix:///nowhere/redis.sock"]},
        }
    }
    before = live.PUBLISH_FAILURES._value.get()
    publish("run.1", "state", value=json.loads("1"))
    assert live.PUBLISH_FAILURES._value.get() == before + 1


class EveryProject(LiveConsumer):
    """Hears each project of the user, as the overview does."""

    def authorise(self, user: User) -> list[str]:
        return [f"overview.{pk}" for pk in for_user(Project.objects.all(), user, path="").values_list("pk", flat=True)]


async def told(socket: Socket, sent: list[Project]) -> list[int]:
    """Publishes to each of these projects once the socket was checked again, and reads until that of the last arrives."""
    for _ in range(2):
        while (await socket.receive())["type"] != "ping":
            pass
    for project in sent:
        await apublish(f"overview.{project.pk}", "state", of=project.pk)
    heard: list[int] = []
    while sent[-1].pk not in heard:
        message = await socket.receive()
        heard += [message["of"]] if message["type"] == "state" else []
    return heard


@pytest.mark.parametrize("layer", ["memory", "redis"])
async def test_a_socket_leaves_the_projects_that_its_user_left(
    anything: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, layer: str
) -> None:
    if layer == "redis":
        request.getfixturevalue("redis_url")
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.2)
    left = anything["project"]

    def prepare() -> tuple[User, User, Project, Project]:
        alice, bob = User.objects.get(username="alice"), User.objects.get(username="bob")
        kept, joined = project_create(user=alice, name="Kept"), project_create(user=alice, name="Joined later")
        member_set(project=kept, user=bob, role=Role.VIEWER, by=alice)
        return alice, bob, kept, joined

    alice, bob, kept, joined = await database_sync_to_async(prepare)()
    socket = Socket.of(EveryProject, client=anything["bob"])
    assert await socket.open()
    assert await told(socket, [left, joined, kept]) == [left.pk, kept.pk]
    await database_sync_to_async(member_set)(project=left, user=bob, role=None, by=alice)
    assert await told(socket, [left, joined, kept]) == [kept.pk]
    await database_sync_to_async(member_set)(project=joined, user=bob, role=Role.VIEWER, by=alice)
    assert await told(socket, [left, joined, kept]) == [joined.pk, kept.pk]
    await socket.close()


@pytest.mark.parametrize("trouble", [OperationalError, InterfaceError, DatabaseError])
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_socket_that_cannot_be_checked_is_closed(
    anything: dict[str, Any], monkeypatch: pytest.MonkeyPatch, trouble: type[Exception], when: str
) -> None:
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.05)
    good = {"checks": 0 if when == "at once" else 2}

    class Breaking(ProjectConsumer):
        project_id = anything["project"].pk

        def authorise(self, user: User) -> list[str]:
            good["checks"] -= 1
            if good["checks"] < 0:
                raise trouble("the connection is lost")
            return super().authorise(user)

    socket = Socket.of(Breaking, client=anything["bob"])
    assert await socket.open()
    assert await socket.closing_code() == BROKEN


async def test_a_reading_outlives_a_database_that_was_away(anything: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "AGAIN_SECONDS", 0.01)
    troubles = [OperationalError("away"), InterfaceError("closed")]

    def read(text: str) -> str:
        if troubles:
            raise troubles.pop()
        return text

    assert await LiveConsumer().patiently(read, "the answer") == "the answer"
    with pytest.raises(ValueError, match="a bug"):
        await LiveConsumer().patiently(int, "a bug")  # its own errors are nobody's to swallow


async def test_a_runs_events_come_after_a_failed_reading(
    anything: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of a run reads on when the database is back; it never only pings."""
    from training_app import consumers
    from training_app.models import PhaseRun

    monkeypatch.setattr(live, "AGAIN_SECONDS", 0.01)
    readings = []

    def run_events(run: PhaseRun, **_: Any) -> list[dict[str, Any]]:
        readings.append(run.pk)
        if len(readings) == 1:
            raise OperationalError("away")
        return [{"id": 7, "kind": "log"}] if len(readings) == 2 else []

    monkeypatch.setattr(consumers, "run_events", run_events)
    run = await PhaseRun.objects.acreate(project=anything["project"], name="r", phase="cold_start", config={})
    socket = Socket.of(consumers.RunConsumer, client=anything["alice"], kwargs={"run_id": run.pk})
    assert await socket.open()
    assert (await socket.receive())["type"] == "hello"
    assert await socket.receive() == {"type": "event", "id": 7, "kind": "log"}
    await socket.close()
