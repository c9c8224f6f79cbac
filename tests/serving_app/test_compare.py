"""Two to four models that answer the same message: who is asked, which branch goes on, stops, limits, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from model_core.errors import ConfigError, EngineError
from r1platform.models import Project
from serving_app import services
from serving_app.api import conversations as api
from serving_app.gateway import limits
from serving_app.models import Conversation, Deployment, Judgement, Message
from serving_app.states import GENERATION_ENDS
from serving_app.views.thread import Turn, thread_of
from tests.serving_app.conftest import deploy, until
from tests.serving_app.test_playground import act, begun, ended, keyed
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other(project: Project, checkpoint: Checkpoint, engine: Any) -> Deployment:
    return deploy(project, checkpoint, name="sums-new", urls=(engine.url,))


@pytest.fixture
def comparison(project: Project, alice: User, deployment: Deployment, other: Deployment, redis_url: str) -> Conversation:
    return services.conversation_create(project=project, user=alice, deployment=deployment, beside=[other.pk])


def round_of(conversation: Conversation, content: str, user: User, **options: Any) -> list[Message]:
    said, _first = services.message_send(conversation=conversation, user=user, content=content, **options)
    return [ended(answer) for answer in said.children.order_by("column")]


def test_every_model_is_asked_and_the_chosen_answer_goes_on(
    comparison: Conversation, alice: User, engine: Any, client_alice: Client
) -> None:
    first, second = round_of(comparison, "say hello", alice)
    assert [(m.state, m.column, m.content) for m in (first, second)] == [("done", 0, "hello "), ("done", 1, "hello ")]
    assert sorted(body["model"] for body in engine.bodies) == ["sums", "sums-new"]
    page = client_alice.get(reverse("conversation", args=[comparison.pk])).content.decode()
    assert f'name="parent" value="{first.pk}"' in page and page.count("This is better") == 2
    begun(act(client_alice, comparison, "prefer", message=second.pk, over=[first.pk, second.pk]))
    page = client_alice.get(reverse("conversation", args=[comparison.pk])).content.decode()
    assert f'name="parent" value="{second.pk}"' in page
    third, fourth = round_of(comparison, "say more", alice, parent=second)
    assert engine.bodies[-1]["messages"][1]["content"] == "hello " and third.parent is not None
    assert third.parent.parent_id == fourth.parent.parent_id == second.pk  # type: ignore[union-attr]
    turns = thread_of(comparison.messages.all())
    assert [turn.message.pk for turn in turns][1] == second.pk and len(turns[1].columns) == 2
    assert Judgement.objects.get().other_deployment == first.deployment


def test_answering_again_stays_in_its_column(comparison: Conversation, alice: User, other: Deployment) -> None:
    first, second = round_of(comparison, "say hello", alice)
    again = ended(services.message_regenerate(message=second, user=alice))
    assert (again.column, again.deployment) == (1, other)
    turn: Turn = thread_of(comparison.messages.all(), at=first.pk)[-1]
    assert [column.siblings for column in turn.columns] == [(first.pk,), (second.pk, again.pk)]
    assert [column.is_shown for column in turn.columns] == [True, False]
    rewritten = services.message_rewrite(message=again, user=alice, content="better")
    assert rewritten.column == 1 and rewritten.deployment is None


def test_one_stop_ends_all_that_is_written(comparison: Conversation, alice: User, client_alice: Client) -> None:
    said, _answer = services.message_send(conversation=comparison, user=alice, content="count 1000 0.02")
    answers = list(said.children.all())
    assert act(client_alice, comparison, "stop", message=[m.pk for m in answers]).status_code == 200
    assert [ended(m).state for m in answers] == ["stopped", "stopped"]


def test_one_model_that_fails_leaves_the_other(comparison: Conversation, alice: User, other: Deployment) -> None:
    other.revisions.get().replicas.update(base_url="http://127.0.0.1:1")
    first, second = round_of(comparison, "say hello", alice)
    assert (first.state, second.state) == ("done", "failed")
    with pytest.raises(ConfigError, match="Nothing was answered"):
        services.message_prefer(message=first, user=alice, over=[second])


def test_a_comparison_that_cannot_be_is_refused(
    project: Project, alice: User, deployment: Deployment, other: Deployment, comparison: Conversation, charlie: User
) -> None:
    def make(*beside: int) -> None:
        services.conversation_create(project=project, user=alice, deployment=deployment, beside=beside)

    for wrong in ([deployment.pk], [other.pk, other.pk], [10**9], [other.pk, 1, 2, 3]):
        with pytest.raises(ConfigError) as caught:
            make(*wrong)
        assert caught.value.field == "beside"
    Deployment.objects.filter(pk=other.pk).update(state="stopped")
    with pytest.raises(EngineError, match="sums-new"):
        services.message_send(conversation=comparison, user=alice, content="say hello")
    assert not Message.objects.exists()


def test_settings_change_who_is_compared(
    comparison: Conversation, deployment: Deployment, other: Deployment, client_alice: Client, alice: User
) -> None:
    act(client_alice, comparison, "settings", deployment=other.pk, beside=[other.pk, deployment.pk])
    comparison.refresh_from_db()
    assert (comparison.deployment, comparison.beside) == (other, [deployment.pk])
    act(client_alice, comparison, "settings", deployment=other.pk)
    comparison.refresh_from_db()
    assert comparison.beside == []
    services.conversation_update(conversation=comparison, user=alice, beside=[deployment.pk])
    services.conversation_update(conversation=comparison, user=alice, deployment=deployment)
    comparison.refresh_from_db()
    assert comparison.beside == [], "the model that is now the first does not answer beside itself"


def test_each_answer_counts_in_the_limits_of_a_key_and_is_counted_out(
    comparison: Conversation, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = limits.Limits(requests_per_minute=100, concurrent=3)
    monkeypatch.setattr(api, "LIMITS", counted)
    url = f"/api/v1/conversations/{comparison.pk}/messages/"
    rich = keyed(alice, "read", "write", "inference")
    first = rich.post(url, {"content": "count 1000 0.02"}, format="json")
    assert first.status_code == 201 and len(first.json()["beside"]) == 1
    said = Message.objects.get(pk=first.json()["user"]["id"])
    [key] = counted._accounts
    assert counted.running(key) == 2
    busy = rich.post(f"{url}{said.pk}/edit/", {"content": "say x"}, format="json")
    assert busy.status_code == 429 and counted.running(key) == 2, "what was counted in before the limit is out again"
    for answer in said.children.all():
        services.message_stop(message=answer, user=alice)
    until(lambda: not said.children.exclude(state__in=GENERATION_ENDS).exists())
    until(lambda: counted.running(key) == 0)


def test_a_chat_begins_with_several_models(client_alice: Client, deployment: Deployment, other: Deployment, redis_url: str) -> None:
    page = client_alice.get(reverse("playground")).content.decode()
    assert "Side by side with" in page
    client_alice.post(reverse("playground"), {"deployment": deployment.pk, "beside": [other.pk], "content": "say hi"})
    made = Conversation.objects.get()
    assert made.beside == [other.pk] and made.messages.filter(role="assistant").count() == 2
    for answer in made.messages.filter(role="assistant"):
        ended(answer)
