"""The playground's socket against a real engine server: streams, stops, comes back, and is its user's own."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client

from r1platform.models import Project
from serving_app import generation, services
from serving_app.consumers import ChatConsumer
from serving_app.models import Conversation, Deployment, Message
from serving_app.states import GENERATION_ENDS
from tests.sockets import Socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment, redis_url: str) -> Conversation:
    return services.conversation_create(project=project, user=alice, deployment=deployment)


def socket(conversation: Conversation, client: Client | None) -> Socket:
    kwargs = {"conversation_id": conversation.pk}
    return Socket.of(ChatConsumer, f"/ws/chat/{conversation.pk}/", client=client, kwargs=kwargs)


async def until_end(found: Socket) -> tuple[dict[str, str], dict[str, Any]]:
    """What the deltas of one answer add up to, and its last state."""
    text, last = {"reasoning": "", "content": ""}, 0
    while True:
        message = await found.receive()
        if message["type"] == "delta":
            assert message["seq"] == last + 1
            last = message["seq"]
            text[message["channel"]] += message["text"]
        elif message["type"] == "state" and message.get("role") != "user" and message["state"] in GENERATION_ENDS:
            return text, message


async def test_an_answer_streams_and_is_what_the_row_holds(conversation: Conversation, client_alice: Client) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    assert (await found.receive())["messages"] == []
    await found.send({"type": "send", "content": "think one two | say hello"})
    text, end = await until_end(found)
    assert end["state"] == "done" and text["content"]
    row = await Message.objects.aget(pk=end["message"])
    assert (row.content, row.reasoning, row.state) == (text["content"], text["reasoning"], "done")
    again = socket(conversation, client_alice)
    assert await again.open()
    snapshot = await again.receive()
    assert [m["role"] for m in snapshot["messages"]] == ["user", "assistant"]
    assert snapshot["messages"][1]["content"] == text["content"] and snapshot["messages"][1]["seq"] == row.seq
    for one in (found, again):
        await one.close()


async def test_a_stop_keeps_what_is_there(conversation: Conversation, client_alice: Client) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await found.send({"type": "send", "content": "count 500 0.02"})
    while (message := await found.receive())["type"] != "delta":
        pass
    await found.send({"type": "stop", "message": message["message"]})
    while not (message["type"] == "state" and message["state"] in GENERATION_ENDS):
        message = await found.receive()
    assert message["state"] == "stopped"
    row = await Message.objects.aget(pk=message["message"])
    assert row.reasoning or row.content
    await found.close()
    assert await sync_to_async(generation.wait)(row.pk, seconds=5)


async def test_closing_the_socket_does_not_end_the_answer(conversation: Conversation, client_alice: Client) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await found.send({"type": "send", "content": "think one two | say hello"})
    while (await found.receive())["type"] != "state":
        pass
    await found.close()
    answer = await Message.objects.aget(conversation=conversation, role="assistant")
    assert await sync_to_async(generation.wait)(answer.pk, seconds=10)
    await answer.arefresh_from_db()
    assert answer.state == "done" and answer.content


@pytest.mark.parametrize(
    "wrong",
    [{"type": "shout"}, [], {"type": "stop"}, {"type": "stop", "message": 10**12}, {"type": "send", "content": " "},
     {"type": "edit", "message": "x"}],
)  # fmt: skip
async def test_a_wrong_message_is_refused_and_the_socket_stays(
    wrong: Any, conversation: Conversation, client_alice: Client
) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await found.send(wrong)
    assert (await found.receive())["type"] == "error"
    await found.send({"type": "send", "content": "think one two | say hello"})
    assert (await until_end(found))[1]["state"] == "done"
    await found.close()


async def test_a_conversation_is_its_users_own(
    conversation: Conversation, client_bob: Client, client_charlie: Client
) -> None:
    for client, code in ((client_bob, 4404), (client_charlie, 4404), (None, 4401)):
        other = socket(conversation, client)
        assert await other.open()
        assert await other.closing_code() == code
