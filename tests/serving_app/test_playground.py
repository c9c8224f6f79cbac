"""Conversations as people, sockets and API keys use them: branches, stops, settings, scopes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.errors import ConfigError
from r1platform.keys import api_key_create
from r1platform.models import Membership, Project
from serving_app import generation, services
from serving_app.api import conversations as api
from serving_app.gateway import limits
from serving_app.gateway.usage import USAGE
from serving_app.models import Conversation, Deployment, Message, UsageRecord
from serving_app.states import GENERATION_ENDS
from tests.serving_app.conftest import until
from tests.serving_app.test_chat_socket import socket, until_end
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)
JSON = {"HTTP_ACCEPT": "application/json"}


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment, redis_url: str) -> Conversation:
    return services.conversation_create(project=project, user=alice, deployment=deployment)


def ended(message: Message) -> Message:
    until(lambda: Message.objects.filter(pk=message.pk, state__in=GENERATION_ENDS).exists())
    message.refresh_from_db()
    return message


def send(conversation: Conversation, user: User, content: str, **options: Any) -> tuple[Message, Message]:
    said, answer = services.message_send(conversation=conversation, user=user, content=content, **options)
    return said, ended(answer)


def act(client: Client, conversation: Conversation, verb: str, **values: Any) -> Any:
    return client.post(reverse("conversation-act", args=[conversation.pk, verb]), values, **JSON)


def begun(answer: Any) -> Message:
    """The message at the end of the branch that the answer names."""
    return Message.objects.get(pk=answer.headers["Content-Location"].partition("?at=")[2])


def test_the_composer_goes_on_in_the_branch_that_is_shown(
    conversation: Conversation, alice: User, client_alice: Client
) -> None:
    said, first = send(conversation, alice, "say one")
    second = ended(services.message_regenerate(message=first, user=alice))
    page = client_alice.get(reverse("conversation", args=[conversation.pk]) + f"?at={first.pk}").content.decode()
    assert f'name="parent" value="{first.pk}"' in page
    answer = act(client_alice, conversation, "send", content="say two", parent=first.pk)
    newest = ended(begun(answer))
    assert newest.parent is not None and newest.parent.parent_id == first.pk != second.pk
    shown = client_alice.get(reverse("conversation-thread", args=[conversation.pk]) + f"?at={newest.pk}").content.decode()
    assert [f'data-message="{m.pk}"' in shown for m in (said, first, newest, second)] == [True, True, True, False]


def test_a_branch_that_is_begun_is_told(conversation: Conversation, alice: User, client_alice: Client) -> None:
    said, first = send(conversation, alice, "say one")
    for verb, values in (("regenerate", {"message": first.pk}), ("edit", {"message": said.pk, "content": "say two"})):
        newest = ended(begun(act(client_alice, conversation, verb, **values)))
        assert newest.role == "assistant" and newest.pk != first.pk


def test_a_stop_right_after_sending_ends_the_answer_as_stopped(conversation: Conversation, alice: User) -> None:
    for _ in range(5):
        _said, answer = services.message_send(conversation=conversation, user=alice, content="count 1000 0.02")
        services.message_stop(message=answer, user=alice)
        assert ended(answer).state == "stopped" and answer.state_reason == ""


def test_a_stop_of_another_process_is_seen_before_the_engine_is_asked(
    conversation: Conversation, alice: User, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "start", lambda *_: None)
    _said, answer = services.message_send(conversation=conversation, user=alice, content="say hello")
    Message.objects.filter(pk=answer.pk).update(stop_wanted=True)
    monkeypatch.undo()
    generation.start(answer.pk)
    assert ended(answer).state == "stopped" and engine.bodies == []


def test_the_counts_of_a_stopped_answer_are_the_engines(
    conversation: Conversation, alice: User, client_alice: Client
) -> None:
    _said, answer = services.message_send(conversation=conversation, user=alice, content="count 1000 0.02")
    until(lambda: Message.objects.filter(pk=answer.pk).exclude(content="").exists())
    services.message_stop(message=answer, user=alice)
    assert ended(answer).usage["prompt_tokens"] == 7 and answer.usage["reasoning_tokens"] == 2
    Message.objects.filter(pk=answer.pk).update(usage={"completion_tokens": 1, "prompt_tokens": None})
    page = client_alice.get(reverse("conversation-thread", args=[conversation.pk])).content.decode()
    assert "1 out" in page and "None" not in page


def test_one_token_has_no_speed(conversation: Conversation, alice: User) -> None:
    _said, one = send(conversation, alice, "say a")
    assert one.usage["completion_tokens"] == 1 and one.usage["tokens_per_second"] is None


def test_a_chat_that_cannot_begin_leaves_nothing(
    project: Project, client_alice: Client, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Deployment.objects.update(state="stopped")
    answer = client_alice.post(reverse("playground"), {"deployment": deployment.pk, "content": "say hi"})
    assert answer.status_code == 422 and "cannot answer" in answer.content.decode()
    assert not Conversation.objects.exists()


def test_what_is_still_being_written_is_not_called_ended(
    conversation: Conversation, alice: User, client_alice: Client
) -> None:
    _said, answer = services.message_send(conversation=conversation, user=alice, content="count 1000 0.02")
    for verb, values in (("send", {"content": "more"}), ("regenerate", {"message": answer.pk})):
        refused = act(client_alice, conversation, verb, **values)
        assert refused.status_code == 409 and "still being written" in refused.json()["detail"]
    act(client_alice, conversation, "stop", message=answer.pk)
    ended(answer)
    refused = act(client_alice, conversation, "stop", message=answer.pk)
    assert refused.status_code == 409 and "ended already" in refused.json()["detail"]


def test_settings_keep_what_the_dialog_does_not_show(
    conversation: Conversation, alice: User, client_alice: Client, deployment: Deployment
) -> None:
    kept = {"top_k": 5, "stop": ["x"]}
    services.conversation_update(conversation=conversation, user=alice, parameters={"temperature": 0.5, **kept})
    act(client_alice, conversation, "settings", deployment=deployment.pk, max_tokens="20")
    conversation.refresh_from_db()
    assert conversation.parameters == {"max_tokens": 20, **kept}


BAD = ["a\x00b", "a\ud800b"]


@pytest.mark.parametrize("bad", BAD)
def test_texts_that_cannot_be_kept_are_refused_at_their_field(
    conversation: Conversation, alice: User, api_alice: APIClient, bad: str
) -> None:
    url = f"/api/v1/conversations/{conversation.pk}/"

    def call_api(verb: str, path: str, body: dict[str, Any]) -> Any:
        return getattr(api_alice, verb)(path, data=json.dumps(body), content_type="application/json")

    for field in ("title", "system_prompt"):
        answer = call_api("patch", url, {field: bad})
        assert answer.status_code == 400 and field in str(answer.content), answer.content
    for parameters in ({"stop": bad}, {"stop": [bad]}, {bad: 1}):
        assert call_api("patch", url, {"parameters": parameters}).status_code == 400
    assert call_api("post", f"{url}messages/", {"content": bad}).status_code == 400
    for call in (
        lambda: services.message_send(conversation=conversation, user=alice, content=bad),
        lambda: services.conversation_update(conversation=conversation, user=alice, title=bad),
        lambda: services.conversation_update(conversation=conversation, user=alice, system_prompt=bad),
        lambda: services.conversation_update(conversation=conversation, user=alice, parameters={"stop": bad}),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert caught.value.field
    assert not conversation.messages.exists()


def test_names_of_deleted_deployments_are_reserved(project: Project, alice: User, checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="deleted deployments") as caught:
        services.deployment_create(
            project=project, user=alice, name="sums--deleted-7", checkpoint=checkpoint, engine="stub"
        )
    assert caught.value.field == "name"


def keyed(user: User, *scopes: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {api_key_create(user=user, name='k', scopes=scopes)[1]}")
    return client


def test_a_key_generates_only_with_its_scope_in_its_limits_and_on_its_account(
    conversation: Conversation, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = limits.Limits(requests_per_minute=100, concurrent=1)
    monkeypatch.setattr(api, "LIMITS", counted)
    url = f"/api/v1/conversations/{conversation.pk}/messages/"
    poor, rich = keyed(alice, "read", "write"), keyed(alice, "read", "write", "inference")
    said, answer = send(conversation, alice, "say hi")
    for path, body in ((url, {"content": "x"}), (f"{url}{answer.pk}/regenerate/", {}), (f"{url}{said.pk}/edit/", {"content": "x"})):
        refused = poor.post(path, body, format="json")
        assert refused.status_code == 403 and "inference" in refused.json()["detail"]
    assert poor.get(url).status_code == 200
    first = rich.post(url, {"content": "count 1000 0.02"}, format="json")
    assert first.status_code == 201
    busy = rich.post(f"{url}{said.pk}/edit/", {"content": "say x"}, format="json")
    assert busy.status_code == 429 and int(busy.headers["Retry-After"]) >= 1
    message = Message.objects.get(pk=first.json()["assistant"]["id"])
    services.message_stop(message=message, user=alice)
    ended(message)
    until(lambda: (USAGE.flush(), UsageRecord.objects.exclude(api_key=None).exists())[1])
    record = UsageRecord.objects.exclude(api_key=None).get()
    assert record.api_key is not None and record.api_key.name == "k" and "inference" in record.api_key.scopes
    until(lambda: counted.running(record.api_key_id) == 0)
    assert rich.post(url, {"content": " "}, format="json").status_code == 400
    assert counted.running(record.api_key_id) == 0, "what is refused is not counted"


@pytest.mark.parametrize(
    "frame",
    ["{", "", "[" * 100_000, "1", '{"type": []}', '{"type": "send", "content": 5}', '{"type": "send", "content": "\\ud800"}',
     '{"type": "send", "content": "\\u0000"}', '{"type": "stop", "message": true}', '{"type": "stop", "message": 1e400}',
     '{"type": "stop", "message": 99999999999999999999999}', '{"type": "send", "content": "x", "parent": {}}'],
)  # fmt: skip
async def test_a_frame_that_says_nothing_is_an_error_and_the_socket_stays(
    frame: str, conversation: Conversation, client_alice: Client
) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await found.send_input({"type": "websocket.receive", "text": frame})
    assert (await found.receive())["type"] == "error"
    await found.send_input({"type": "websocket.receive", "bytes": b"\xff\x00"})
    assert (await found.receive())["type"] == "error"
    await found.send({"type": "send", "content": "say hello"})
    assert (await until_end(found))[1]["state"] == "done"
    await found.close()


async def test_an_action_after_the_membership_ended_closes_the_socket(
    conversation: Conversation, client_alice: Client, alice: User
) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await database_sync_to_async(Membership.objects.filter(user=alice).delete)()
    await found.send({"type": "send", "content": "say hello"})
    assert await found.closing_code() == 4404
    assert not await database_sync_to_async(Message.objects.exists)()


async def test_a_conversation_that_was_deleted_meanwhile_closes_the_socket(
    conversation: Conversation, client_alice: Client
) -> None:
    found = socket(conversation, client_alice)
    assert await found.open()
    await found.receive()
    await database_sync_to_async(conversation.delete)()
    await found.send({"type": "send", "content": "say hello"})
    assert await found.closing_code() == 4404


def test_a_message_that_was_refused_does_not_stand_in_the_way_of_the_next(
    conversation: Conversation, alice: User, engine: Any
) -> None:
    send(conversation, alice, "say one")
    _said, refused = send(conversation, alice, "long")
    assert refused.state == "failed" and refused.usage["error_code"] == "context_length_exceeded"
    _said, answer = send(conversation, alice, "say two")
    assert answer.state == "done" and answer.usage["finish_reason"] == "stop" and answer.usage["error_code"] is None
    assert [turn["content"] for turn in engine.bodies[-1]["messages"]] == ["say one", "one ", "say two"]
    send(conversation, alice, "long")
    services.conversation_update(conversation=conversation, user=alice, system_prompt="Be brief.")
    send(conversation, alice, "say three")
    said = [(turn["role"], turn["content"].strip()) for turn in engine.bodies[-1]["messages"]]
    assert said == [("system", "Be brief."), ("user", "say one"), ("assistant", "one"), ("user", "say two"),
                    ("assistant", "two"), ("user", "say three")]  # fmt: skip
