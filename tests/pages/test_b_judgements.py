"""Judging in the playground, its review, the dataset made of it and the win rates: who may, what it says, what it refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from model_core.errors import ConfigError, DataError
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import AuditEntry, Node, Project
from serving_app import selectors, services
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS
from serving_app.models import Conversation, Deployment, Judgement, Message
from serving_app.services import judged_datasets
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_run
from training_app.models import Dataset, Pipeline, Upload

pytestmark = pytest.mark.django_db
PAGES = ["review-queue", "judged-datasets", "win-rates"]


@pytest.fixture
def deployment(project: Project, node: Node) -> Deployment:
    return make_deployment(project, make_checkpoint(make_run(project), node))


@pytest.fixture
def other(project: Project, node: Node) -> Deployment:
    return make_deployment(project, make_checkpoint(make_run(project), node, 9), name="sums-new")


@pytest.fixture
def conversation(project: Project, alice: User, deployment: Deployment) -> Conversation:
    made = make_conversation(project, alice, deployment)
    made.messages.filter(role="assistant").update(deployment=deployment)
    return made


def answer_of(conversation: Conversation) -> Message:
    return conversation.messages.get(role="assistant")


def beside(message: Message, deployment: Deployment | None, content: str, column: int = 1) -> Message:
    """Another answer to the same message, in a column of its own; the first goes into column 0."""
    Message.objects.filter(pk=message.pk).update(column=0)
    return Message.objects.create(
        conversation=message.conversation, parent=message.parent, role="assistant", content=content, deployment=deployment,
        column=column,
    )  # fmt: skip


def act(client: Client, conversation: Conversation, verb: str, **values: Any) -> Any:
    return client.post(reverse("conversation-act", args=[conversation.pk, verb]), values, headers={"Accept": "application/json"})


def shown(client: Client, conversation: Conversation, **query: Any) -> str:
    return client.get(reverse("conversation", args=[conversation.pk]), query).content.decode()


def test_a_rating_keeps_the_texts_its_reasons_and_one_row(conversation: Conversation, client_alice: Client) -> None:
    answer = answer_of(conversation)
    assert act(client_alice, conversation, "rate", message=answer.pk, value="1").status_code == 200
    sent = {"message": answer.pk, "value": "-1", "reasons": ["wrong", "too_long"], "comment": "No."}
    assert act(client_alice, conversation, "rate", **sent).status_code == 200
    said = Judgement.objects.get()
    assert (said.value, said.reasons, said.comment, said.state) == (-1, ["wrong", "too_long"], "No.", "pending")
    assert said.rejected == "<think>7+5=12</think>It is **42**." and said.chosen == ""
    assert said.prompt == [{"role": "user", "content": "What is 17 + 25?"}] and said.deployment == answer.deployment
    page = shown(client_alice, conversation)
    assert 'value="0" aria-pressed="true">Bad' in page and '<span class="tag">Wrong</span>' in page
    act(client_alice, conversation, "rate", message=answer.pk, value="0")
    assert not Judgement.objects.exists()


@pytest.mark.parametrize(
    ("sent", "words"),
    [({"value": "2"}, "A rating is"), ({}, "A rating is"), ({"value": "1", "reasons": "wrong"}, "is no reason here"),
     ({"value": "1", "comment": "x" * 2001}, "at most 2000 fit")],
)  # fmt: skip
def test_a_rating_that_is_none_is_refused(
    sent: dict[str, Any], words: str, conversation: Conversation, client_alice: Client
) -> None:
    refused = act(client_alice, conversation, "rate", message=answer_of(conversation).pk, **sent)
    assert refused.status_code == 400 and words in refused.json()["detail"]
    assert not Judgement.objects.exists()


def test_only_answers_that_have_ended_with_a_text_are_judged(conversation: Conversation, alice: User) -> None:
    said, answer = conversation.messages.all()
    with pytest.raises(ConfigError, match="not what you said"):
        services.message_rate(message=said, user=alice, value=1)
    Message.objects.filter(pk=answer.pk).update(state="answering")
    answer.refresh_from_db()
    with pytest.raises(IllegalTransition):
        services.message_rate(message=answer, user=alice, value=1)
    Message.objects.filter(pk=answer.pk).update(state="failed", content="", reasoning="")
    answer.refresh_from_db()
    with pytest.raises(ConfigError, match="Nothing was answered"):
        services.message_rate(message=answer, user=alice, value=1)


def test_an_answer_written_anew_stands_beside_and_makes_one_pair(conversation: Conversation, client_alice: Client) -> None:
    answer = answer_of(conversation)
    told = act(client_alice, conversation, "rewrite", message=answer.pk, content="42", reasoning="17+25=42")
    made = Message.objects.get(edit_of=answer)
    assert told.headers["Content-Location"].endswith(f"?at={made.pk}")
    said = Judgement.objects.get()
    assert (said.kind, said.chosen, said.rejected) == ("edit", "<think>17+25=42</think>42", "<think>7+5=12</think>It is **42**.")
    page = shown(client_alice, conversation)
    assert "Written by a person" in page and "2 of 2" in page and "Good</button>" not in page
    act(client_alice, conversation, "rewrite", message=made.pk, content="It is 42.")
    said = Judgement.objects.get()
    assert said.chosen == "It is 42." and said.rejected.endswith("It is **42**.")
    same = act(client_alice, conversation, "rewrite", message=answer.pk, content="It is **42**.", reasoning="7+5=12")
    assert same.status_code == 400 and "as it is" in same.json()["detail"]


def test_a_choice_replaces_the_last_and_counts_in_the_win_rates(
    conversation: Conversation, other: Deployment, alice: User, client_alice: Client, client_bob: Client
) -> None:
    first = answer_of(conversation)
    second = beside(first, other, "43")
    for message, over in ((first, second), (second, first)):
        told = act(client_alice, conversation, "prefer", message=message.pk, over=[first.pk, second.pk])
        assert told.headers["Content-Location"].endswith(f"?at={message.pk}")
        said = Judgement.objects.get()
        assert (said.message, said.other, said.value) == (message, over, 1)
    page = shown(client_alice, conversation)
    assert "Your choice" in page and f'name="parent" value="{second.pk}"' in page
    [pair] = selectors.win_rates(user=alice, project=conversation.project)
    assert {pair.first.name, pair.second.name} == {"sums-r1", "sums-new"} and pair.num == 1
    low, high = pair.interval
    assert low < pair.rate < high or pair.rate in {low, high}
    rates = client_bob.get(reverse("win-rates")).content.decode()
    assert "sums-new" in rates and "No difference can be told yet" in rates
    act(client_alice, conversation, "prefer", message=first.pk, over=second.pk, tie="1")
    [pair] = selectors.win_rates(user=alice, project=conversation.project)
    assert (pair.rate, pair.ties) == (0.5, 1) and not selectors.judgement_list(user=alice).exists()


def test_of_four_answers_a_choice_is_three_pairs_and_a_tie_six(
    conversation: Conversation, deployment: Deployment, alice: User
) -> None:
    first = answer_of(conversation)
    rest = [beside(first, deployment, text, column) for column, text in enumerate("abc", 1)]
    assert len(services.message_prefer(message=rest[0], user=alice, over=[first, *rest[1:]])) == 3
    assert len(services.message_prefer(message=first, user=alice, over=rest, tie=True)) == 6
    assert Judgement.objects.count() == 6


def test_a_choice_is_between_answers_to_one_message(conversation: Conversation, project: Project, alice: User) -> None:
    first = answer_of(conversation)
    elsewhere = answer_of(make_conversation(project, alice))
    for over in ([], [first], [elsewhere]):
        with pytest.raises(ConfigError):
            services.message_prefer(message=first, user=alice, over=over)


def test_a_win_rate_counts_what_was_not_left_out(
    conversation: Conversation, other: Deployment, alice: User, erin: User
) -> None:
    first = answer_of(conversation)
    [said] = services.message_prefer(message=first, user=alice, over=[beside(first, other, "43")])
    services.judgement_review(project=conversation.project, user=erin, ids=[said.pk], to="rejected")
    assert selectors.win_rates(user=alice, project=conversation.project) == []


def test_the_database_refuses_what_is_no_judgement(conversation: Conversation, project: Project) -> None:
    for values in ({"kind": "rating", "value": 2, "chosen": "a"}, {"kind": "rating", "value": 1}, {"kind": "edit", "value": 1, "chosen": "a"},
                   {"kind": "praise", "value": 1, "chosen": "a"}, {"kind": "rating", "value": 1, "chosen": "a", "state": "odd"}):  # fmt: skip
        with pytest.raises(IntegrityError), transaction.atomic():
            Judgement.objects.create(project=project, prompt=[], **values)


def test_who_may_see_and_review(
    conversation: Conversation, alice: User, client_alice: Client, client_erin: Client, client_bob: Client,
    client_charlie: Client, client: Client,
) -> None:  # fmt: skip
    said = services.message_rate(message=answer_of(conversation), user=alice, value=1)
    assert said is not None
    for name in PAGES:
        assert client_alice.get(reverse(name)).status_code == client_erin.get(reverse(name)).status_code == 200
        assert client_bob.get(reverse(name)).status_code == (200 if name == "win-rates" else 403)
        assert "17 + 25" not in client_charlie.get(reverse(name)).content.decode()
        assert client.get(reverse(name)).status_code == 302
    act_url, sent = reverse("review-act"), {"judgement": said.pk, "to": "accepted"}
    assert client_bob.post(act_url, sent).status_code == 403
    assert client.post(act_url, sent).status_code == 302
    client_charlie.post(act_url, sent)
    said.refresh_from_db()
    assert said.state == "pending"
    client_erin.post(act_url, sent)
    said.refresh_from_db()
    assert said.state == "accepted" and said.reviewed_by is not None and said.reviewed_by.username == "erin"
    assert AuditEntry.objects.filter(action="judgement.review").count() == 1
    assert client_bob.post(reverse("judged-datasets"), {"form": "pairs", "name": "x"}).status_code == 403


def test_a_judgement_that_changes_waits_for_review_again(conversation: Conversation, alice: User, erin: User) -> None:
    answer = answer_of(conversation)
    first = services.message_rate(message=answer, user=alice, value=1)
    assert first is not None
    services.judgement_review(project=conversation.project, user=erin, ids=[first.pk], to="accepted")
    again = services.message_rate(message=answer, user=alice, value=1, reasons=["clear"])
    assert again is not None and again.state == "pending"


def test_what_nobody_accepted_goes_with_its_conversation(conversation: Conversation, alice: User, erin: User) -> None:
    answer = answer_of(conversation)
    services.message_rate(message=answer, user=alice, value=1)
    services.message_rewrite(message=answer, user=alice, content="42")
    kept = Judgement.objects.get(kind="edit")
    services.judgement_review(project=conversation.project, user=erin, ids=[kept.pk], to="accepted")
    services.conversation_delete(conversation=conversation, user=alice)
    assert Judgement.objects.get().chosen == "42"


def test_the_queue_is_filtered_and_counts_its_queries(
    conversation: Conversation, alice: User, client_erin: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(12):
        one = make_conversation(conversation.project, alice, conversation.deployment, title=f"Chat {n}")
        services.message_rate(message=answer_of(one), user=alice, value=1 if n % 2 else -1, comment=f"note {n}")
    with django_assert_max_num_queries(16):
        page = client_erin.get(reverse("review-queue"))
    assert len(page.context["rows"]) == 12 and "note 11" in page.content.decode()
    found = client_erin.get(reverse("review-queue"), {"q": "note 7"})
    assert len(found.context["rows"]) == 1
    assert len(client_erin.get(reverse("review-queue"), {"state": "accepted"}).context["rows"]) == 0
    assert len(client_erin.get(reverse("review-queue"), {"kind": "edit", "state": "all"}).context["rows"]) == 0


@pytest.mark.django_db(transaction=True)
def test_two_judgements_at_once_are_one_after_the_other(conversation: Conversation, other: Deployment, alice: User) -> None:
    """A double click is no error: the later one takes the earlier one's place."""
    first = answer_of(conversation)
    second = beside(first, other, "43")

    def judge(value: int) -> None:
        try:
            services.message_rate(message=first, user=alice, value=value)
            services.message_prefer(message=first, user=alice, over=[second])
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(judge, value) for value in (1, -1) * 6]:
            done.result()
    assert sorted(Judgement.objects.values_list("kind", flat=True)) == ["choice", "rating"]


def accept_all(project: Project, user: User) -> None:
    ids = list(Judgement.objects.exclude(value=0).values_list("pk", flat=True))
    services.judgement_review(project=project, user=user, ids=ids, to="accepted")


def test_accepted_judgements_become_a_version_once_and_another_when_there_are_more(
    conversation: Conversation, project: Project, alice: User, erin: User, client_erin: Client
) -> None:
    answer = answer_of(conversation)
    with pytest.raises(DataError, match="which of two answers is better"):
        services.judged_version_create(project=project, user=erin, form=PAIRS, name="Preferences")
    services.message_rewrite(message=answer, user=alice, content="42")
    accept_all(project, erin)
    sent = {"form": PAIRS, "name": "Preferences", "held_out_fraction": "0.1"}
    assert client_erin.post(reverse("judged-datasets"), sent)["Location"] == reverse("judged-datasets")
    dataset = Dataset.objects.get()
    version = dataset.versions.get()
    assert version.config["mapping"]["chosen"] == "chosen" and version.judgements.count() == 1 and version.upload is not None
    page = client_erin.get(reverse("judged-datasets")).content.decode()
    assert "Preferences v1" in page and "phase=reward_model" not in page, "it trains when it is ready"
    again = client_erin.post(reverse("judged-datasets"), {**sent, "dataset": dataset.pk})
    assert again.status_code == 422 and "Nothing has been accepted since version 1" in again.content.decode()
    other_form = client_erin.post(reverse("judged-datasets"), {**sent, "dataset": dataset.pk, "form": DEMONSTRATIONS})
    assert other_form.status_code == 422 and "the other form" in other_form.content.decode()
    assert Upload.objects.count() == 1
    services.message_rewrite(message=answer_of(make_conversation(project, alice)), user=alice, content="Forty-two.")
    accept_all(project, erin)
    made = services.judged_version_create(project=project, user=erin, form=PAIRS, dataset=dataset)
    assert made.number == 2 and made.judgements.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_editors_at_once_one_makes_the_version(
    conversation: Conversation, project: Project, alice: User, erin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first would meet the second where the rows are stored; the second waits until the first is done, and is told so."""
    services.message_rewrite(message=answer_of(conversation), user=alice, content="42")
    accept_all(project, erin)
    dataset = Dataset.objects.create(project=project, name="Preferences", kind="self")
    both, store = threading.Barrier(2), judged_datasets.upload_create

    def met(**values: Any) -> Upload:
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)
        return store(**values)

    def make(user: User) -> str:
        try:
            services.judged_version_create(project=project, user=user, form=PAIRS, dataset=dataset)
        except ConfigError as error:
            return error.message
        finally:
            connection.close()
        return "made"

    monkeypatch.setattr(judged_datasets, "upload_create", met)
    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(make, (alice, erin)))
    assert told[1] == "made" and "Nothing has been accepted since version 1" in told[0]
    assert dataset.versions.count() == Upload.objects.count() == 1


def test_a_ready_version_leads_to_the_forms_that_train_on_it(
    conversation: Conversation, project: Project, alice: User, erin: User, client_erin: Client
) -> None:
    services.message_rewrite(message=answer_of(conversation), user=alice, content="42")
    accept_all(project, erin)
    made = {form: services.judged_version_create(project=project, user=erin, form=form, name=form) for form in (PAIRS, DEMONSTRATIONS)}
    for version in made.values():
        type(version).objects.filter(pk=version.pk).update(state="ready", manifest={}, sha256="ab", num_rows=1)
    page = client_erin.get(reverse("judged-datasets")).content.decode()
    assert conversation.deployment is not None
    start = conversation.deployment.revisions.get().checkpoint_id
    for rows, template in ((PAIRS, "preference"), (PAIRS, "reward_model"), (DEMONSTRATIONS, "fine_tuning")):
        address = f"{reverse('pipeline-new')}?dataset_version={made[rows].pk}&starts_from={start}&template={template}"
        assert address.replace("&", "&amp;") in page
        form = client_erin.get(address).context["form"]
        sent = {name: getattr(value, "pk", value) for name in form.fields if (value := form[name].value()) is not None}
        assert (sent["template"], sent["dataset_version"], sent["starts_from"]) == (template, made[rows].pk, start)
        plan = Pipeline.objects.get(pk=client_erin.post(reverse("pipeline-new"), sent)["Location"].split("/")[-2])
        assert {phase.from_checkpoint_id for phase in plan.phases.all()} == {start}
        assert client_erin.get(address).context["form"]["name"].value() == f"{sent['name']}, 2", "that name is taken now"


def test_what_is_preferred_can_take_the_place_of_the_other(
    conversation: Conversation, deployment: Deployment, other: Deployment, client_erin: Client, client_bob: Client
) -> None:
    other_checkpoint = other.revisions.get().checkpoint_id
    link = f"{reverse('deployment-revise', args=[deployment.pk])}?checkpoint={other_checkpoint}"
    for number in range(6):
        assert link not in client_erin.get(reverse("win-rates")).content.decode() or number > 3, "too few to tell"
        Judgement.objects.create(
            project=conversation.project, kind="choice", value=1, prompt=[], chosen="42", rejected=str(number),
            deployment=other, other_deployment=deployment,
        )  # fmt: skip
    assert link in client_erin.get(reverse("win-rates")).content.decode()
    assert link not in client_bob.get(reverse("win-rates")).content.decode(), "a viewer deploys nothing"


def test_a_file_of_a_version_that_is_refused_is_not_kept(
    conversation: Conversation, project: Project, alice: User, erin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.message_rewrite(message=answer_of(conversation), user=alice, content="42")
    accept_all(project, erin)

    def refused(**_: Any) -> None:
        raise ConfigError("No.")

    monkeypatch.setattr(judged_datasets, "version_prepare", refused)
    with pytest.raises(ConfigError):
        services.judged_version_create(project=project, user=erin, form=PAIRS, name="x")
    assert not Upload.objects.exists() and not Dataset.objects.exists()


def test_the_api_does_all_of_it(
    conversation: Conversation, other: Deployment, project: Project, api_alice: APIClient, api_erin: APIClient,
    api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient,
) -> None:  # fmt: skip
    first = answer_of(conversation)
    second = beside(first, other, "43")
    messages = f"/api/v1/conversations/{conversation.pk}/messages"
    rated = api_alice.post(f"{messages}/{first.pk}/rate/", {"value": 1, "reasons": ["correct"]})
    assert rated.status_code == 200 and rated.json()["chosen"].endswith("It is **42**.")
    assert api_alice.post(f"{messages}/{first.pk}/rate/", {"value": 0}).status_code == 204
    assert api_alice.post(f"{messages}/{first.pk}/rate/", {"value": 5}).status_code == 400
    assert api_alice.post(f"{messages}/{first.pk}/rewrite/", {"content": "42"}).json()["edit_of"] == first.pk
    chosen = api_alice.post(f"{messages}/{second.pk}/prefer/", {"over": [first.pk]})
    assert chosen.status_code == 201 and len(chosen.json()) == 1
    for verb, body in (("rate", {"value": 1}), ("rewrite", {"content": "x"}), ("prefer", {"over": [second.pk]})):
        for api, status in ((api_bob, 404), (api_charlie, 404), (api_anonymous, 401)):
            assert api.post(f"{messages}/{first.pk}/{verb}/", body).status_code == status
    found = api_erin.get("/api/v1/judgements/").json()["results"]
    assert {one["kind"] for one in found} == {"edit", "choice"}
    assert api_bob.get("/api/v1/judgements/").json()["results"] == api_charlie.get("/api/v1/judgements/").json()["results"] == []
    ids = [one["id"] for one in found]
    assert api_bob.post("/api/v1/judgements/review/", {"judgements": ids, "state": "accepted"}).status_code == 403
    assert api_charlie.post("/api/v1/judgements/review/", {"judgements": ids, "state": "accepted"}).status_code == 400
    assert api_erin.post("/api/v1/judgements/review/", {"judgements": ids, "state": "accepted"}).json() == {"moved": 2}
    rates = api_bob.get("/api/v1/judgements/win-rates/").json()
    assert rates[0]["wins"] + rates[0]["losses"] == 1 and len(rates[0]["interval"]) == 2
    assert api_bob.post("/api/v1/judgements/dataset/", {"form": "pairs", "name": "P"}).status_code == 403
    made = api_erin.post("/api/v1/judgements/dataset/", {"form": "pairs", "name": "P"})
    assert made.status_code == 201 and made.json()["number"] == 1, made.content
    assert api_erin.get(f"/api/v1/judgements/{ids[0]}/").json()["state"] == "accepted"
    assert api_anonymous.get("/api/v1/judgements/").status_code == 401
