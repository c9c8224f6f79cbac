"""Live messages: they arrive, a lost one harms nobody, and a socket ends when its right to listen ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from r1platform.access import role_in
from r1platform.lib import live
from r1platform.lib.live import ANONYMOUS, FORBIDDEN, NOT_FOUND, LiveConsumer, Refused, apublish, publish
from r1platform.models import Membership, Project
from r1platform.services import member_set
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
