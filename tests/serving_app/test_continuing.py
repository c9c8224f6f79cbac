"""Answers that go on: where they were cut, from another token, and behind thinking that came to its budget."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.errors import ConfigError
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from serving_app import selectors, services
from serving_app.answer_parts import tokens_of
from serving_app.gateway.usage import USAGE
from serving_app.models import Conversation, Deployment, Message, UsageRecord
from tests.serving_app.conftest import until
from tests.serving_app.test_playground import act, begun, ended, send

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment, redis_url: str) -> Conversation:
    return services.conversation_create(project=project, user=alice, deployment=deployment)


def stopped(conversation: Conversation, user: User, content: str, channel: str) -> Message:
    """An answer that was stopped after some of it had come."""
    _said, answer = services.message_send(conversation=conversation, user=user, content=content)
    until(lambda: Message.objects.filter(pk=answer.pk).exclude(**{channel: ""}).exists())
    services.message_stop(message=answer, user=user)
    return ended(answer)


def test_a_stopped_answer_goes_on_beside_itself(
    conversation: Conversation, alice: User, engine: Any, client_alice: Client
) -> None:
    answer = stopped(conversation, alice, "count 1000 0.02", "content")
    page = client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()
    assert "Continue</button>" in page
    made = ended(begun(act(client_alice, conversation, "continue", message=answer.pk)))
    assert (made.parent_id, made.state, made.content) == (answer.parent_id, "done", f"{answer.content}so on ")
    asked = engine.bodies[-1]
    assert asked["continue_final_message"] and asked["messages"][-1] == {"role": "assistant", "content": answer.content}
    assert "Continue</button>" not in client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()


def test_thinking_that_was_stopped_goes_on_as_thinking(conversation: Conversation, alice: User, engine: Any) -> None:
    """The engine does not know that what follows is thought; the mark that closes it is found here."""
    answer = stopped(conversation, alice, "ponder", "reasoning")
    made = ended(services.message_continue(message=answer, user=alice))
    assert engine.bodies[-1]["messages"][-1]["content"] == f"<think>{answer.reasoning}"
    assert (made.reasoning, made.content) == (f"{answer.reasoning}closed ", "so on ")


def test_what_does_not_go_on(conversation: Conversation, alice: User, client_alice: Client) -> None:
    said, failed = send(conversation, alice, "fail")
    with pytest.raises(ConfigError, match="Nothing was answered"):
        services.message_continue(message=failed, user=alice)
    with pytest.raises(ConfigError, match="Only answers"):
        services.message_continue(message=said, user=alice)
    _said, running = services.message_send(conversation=conversation, user=alice, content="count 1000 0.02")
    with pytest.raises(IllegalTransition):
        services.message_continue(message=running, user=alice)
    services.message_stop(message=running, user=alice)
    ended(running)
    for wrong in ({"token": "x"}, {"token": "0"}):
        assert act(client_alice, conversation, "continue", message=running.pk, **wrong).status_code == 400


def test_tokens_are_kept_when_asked_for_and_another_one_can_be_gone_on_from(
    conversation: Conversation, alice: User, engine: Any, client_alice: Client, client_bob: Client, api_alice: APIClient
) -> None:
    _said, plain = send(conversation, alice, "say a b")
    assert plain.tokens is None and "logprobs" not in engine.bodies[-1]
    services.conversation_update(conversation=conversation, user=alice, parameters={"token_logprobs": True})
    _said, answer = send(conversation, alice, "think one | two three")
    assert engine.bodies[-1]["logprobs"] is True and "token_logprobs" not in engine.bodies[-1]
    assert [token[0] for token in answer.tokens or []] == ["one ", "two ", "three "]
    found = selectors.message_tokens(answer)
    assert found[1].level == 0 and found[1].others == ((1, "else ", pytest.approx(0.0821, abs=1e-3)),)
    address = reverse("message-tokens", args=[conversation.pk, answer.pk])
    assert address in client_alice.get(reverse("conversation", args=[conversation.pk])).content.decode()
    page = client_alice.get(address).content.decode()
    assert "8.2" in page and page.count("<summary") == 3
    assert client_bob.get(address).status_code == 404 and Client().get(address).status_code == 302
    assert client_alice.get(reverse("message-tokens", args=[conversation.pk, plain.pk])).status_code == 404
    told = api_alice.get(f"/api/v1/conversations/{conversation.pk}/messages/{answer.pk}/tokens/").json()
    assert told[2]["text"] == "three " and told[2]["others"][0][1] == "else "
    _said, spoken = send(conversation, alice, "say two three")
    made = api_alice.post(f"/api/v1/conversations/{conversation.pk}/messages/{spoken.pk}/continue/", {"token": 1, "choice": 1})
    assert made.status_code == 201, made.content
    other = ended(Message.objects.get(pk=made.json()["id"]))
    assert other.prefix == "two else " and other.content == "two else so on "
    assert api_alice.post(f"/api/v1/conversations/{conversation.pk}/messages/{spoken.pk}/continue/", {"token": 9}).status_code == 400


def test_thinking_ends_at_its_budget_and_the_answer_begins(conversation: Conversation, alice: User, engine: Any) -> None:
    services.conversation_update(conversation=conversation, user=alice, parameters={"thinking_budget": 5, "max_tokens": 50})
    _said, answer = send(conversation, alice, "ponder")
    assert answer.state == "done" and answer.content == "so on " and answer.usage["thinking_cut"] is True
    thought = answer.reasoning.split()
    assert 5 <= len(thought) <= 8 and answer.usage["reasoning_tokens"] == len(thought)
    first, second = engine.bodies[-2:]
    assert "thinking_budget" not in first and second["continue_final_message"] is True
    assert second["messages"][-1]["content"] == f"<think>{answer.reasoning}</think>"
    assert second["max_tokens"] == 50 - len(thought)
    assert answer.usage["completion_tokens"] == len(thought) + 2 and answer.usage["prompt_tokens"] == 7
    until(lambda: engine.running == 0)
    assert engine.aborted == 1, "the engine does not go on with what nobody reads"
    until(lambda: (USAGE.flush(), UsageRecord.objects.exists())[1])
    assert UsageRecord.objects.get().completion_tokens == len(thought) + 2


def test_thinking_within_its_budget_is_left_alone(conversation: Conversation, alice: User, engine: Any) -> None:
    services.conversation_update(conversation=conversation, user=alice, parameters={"thinking_budget": 5})
    _said, answer = send(conversation, alice, "think a b | c d e f g h i")
    assert answer.usage["thinking_cut"] is False and len(engine.bodies) == 1 and answer.content == "c d e f g h i "


def test_what_engines_tell_of_tokens_is_taken_as_far_as_there_is_room() -> None:
    told = {"content": [{"token": "a\x00", "logprob": 1e-9, "top_logprobs": None}, {"token": "b", "logprob": -2, "top_logprobs": []}]}
    assert tokens_of(told, room=9) == [["a", 0.0, []], ["b", -2.0, []]]
    assert tokens_of(told, room=1) == [["a", 0.0, []]] and tokens_of(told, room=-3) == tokens_of(None, room=3) == []
