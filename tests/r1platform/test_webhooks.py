"""Webhooks: who owns them, what is signed, how often it is tried, and when it ends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from r1platform import webhooks
from r1platform.celery import app
from r1platform.lib.outbound import Answer, Unreachable
from r1platform.models import AuditEntry, Project, Webhook, WebhookDelivery

pytestmark = pytest.mark.django_db
API = "/api/v1/webhooks/"
URL = "https://hooks.example.org/r1"


@pytest.fixture
def webhook(project: Project, alice: User) -> Webhook:
    return webhooks.webhook_create(project=project, user=alice, name="channel", url=URL)[0]


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """What the other end answers, and what it was sent."""
    got: list[dict[str, Any]] = []

    def answers(answer: Answer | OSError) -> list[dict[str, Any]]:
        def post(url: str, *, body: bytes, headers: dict[str, str], allow_private: bool) -> Answer:
            got.append({"url": url, "body": body, "headers": headers, "allow_private": allow_private})
            if isinstance(answer, OSError):
                raise answer
            return answer

        monkeypatch.setattr(webhooks, "post", post)
        return got

    return answers


def delivery(webhook: Webhook, **data: Any) -> WebhookDelivery:
    made = webhooks.webhook_send(webhook=webhook, event="ping", data=data)
    assert made is not None
    return made


def due_now(made: WebhookDelivery) -> None:
    WebhookDelivery.objects.filter(pk=made.pk).update(next_attempt_at=Now() - timedelta(seconds=1))


def test_a_receiver_can_verify_what_it_gets(webhook: Webhook, far: Any) -> None:
    got = far(Answer(204, ""))
    assert webhooks.webhook_deliver(delivery(webhook, answer="42 – ja").pk)
    headers, body = got[0]["headers"], got[0]["body"]
    key = base64.b64decode(webhooks.webhook_secret(webhook).removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}" and got[0]["url"] == URL and got[0]["allow_private"] is False
    said = json.loads(body)
    assert said["type"] == "ping" and said["data"] == {"answer": "42 – ja"}


def test_signatures_are_those_of_the_standard() -> None:
    """The example of the Standard Webhooks libraries."""
    headers = webhooks.signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )  # fmt: skip
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_not_in_the_database_and_changes_when_asked(webhook: Webhook, alice: User) -> None:
    before = webhooks.webhook_secret(webhook)
    row = Webhook.objects.filter(pk=webhook.pk).values().get()
    assert before not in str(row) and len(base64.b64decode(before.removeprefix("whsec_"))) == 32
    assert webhooks.webhook_secret_renew(webhook=webhook, user=alice) != before


def test_a_failure_is_tried_again_later_and_given_up_at_last(webhook: Webhook, far: Any) -> None:
    got = far(Answer(500, "out of\norder"))
    made = delivery(webhook)
    for attempt in range(1, len(webhooks.WAITS) + 2):
        assert webhooks.deliveries_due() == [made.pk]
        assert not webhooks.webhook_deliver(made.pk)
        made.refresh_from_db()
        assert made.num_attempts == attempt and made.last_status == 500 and made.last_error == "It answered 500: out of order"
        assert webhooks.deliveries_due() == []
        due_now(made)
    assert made.given_up_at is not None and webhooks.deliveries_due() == []
    assert len(got) == len(webhooks.WAITS) + 1 and len({one["headers"]["webhook-id"] for one in got}) == 1


def test_nobody_there_is_a_failure_with_its_sentence(webhook: Webhook, far: Any) -> None:
    far(Unreachable("It did not answer within 8 seconds."))
    made = delivery(webhook)
    assert not webhooks.webhook_deliver(made.pk)
    made.refresh_from_db()
    assert made.last_error == "It did not answer within 8 seconds." and made.last_status is None


def test_before_its_time_nothing_is_sent_and_what_arrived_is_not_sent_again(webhook: Webhook, far: Any) -> None:
    got = far(Answer(503, ""))
    made = delivery(webhook)
    webhooks.webhook_deliver(made.pk)
    webhooks.webhook_deliver(made.pk)
    assert len(got) == 1
    due_now(made)
    far(Answer(200, ""))
    assert webhooks.webhook_deliver(made.pk)
    due_now(made)
    assert not webhooks.webhook_deliver(made.pk) and webhooks.deliveries_due() == []


def test_of_two_workers_at_once_one_posts(webhook: Webhook, far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks when the first has read the row and not claimed it yet."""
    got = far(Answer(200, ""))
    made, claim = delivery(webhook), webhooks._claim

    def between(row: WebhookDelivery) -> bool:
        monkeypatch.setattr(webhooks, "_claim", claim)
        assert webhooks.webhook_deliver(made.pk)
        return claim(row)

    monkeypatch.setattr(webhooks, "_claim", between)
    assert not webhooks.webhook_deliver(made.pk) and len(got) == 1


def test_one_that_is_gone_is_switched_off_and_hears_nothing_more(webhook: Webhook, far: Any) -> None:
    far(Answer(410, ""))
    made = delivery(webhook)
    webhooks.webhook_deliver(made.pk)
    webhook.refresh_from_db()
    assert not webhook.is_enabled and webhook.disabled_reason == "Its address answered 410 Gone."
    assert webhooks.webhook_send(webhook=webhook, event="ping", data={}) is None
    due_now(made)
    got = far(Answer(200, ""))
    webhooks.webhook_deliver(made.pk)
    made.refresh_from_db()
    assert made.given_up_at is not None and len(got) == 1


def test_one_webhook_with_much_to_deliver_does_not_hold_another(webhook: Webhook, project: Project, alice: User) -> None:
    other = webhooks.webhook_create(project=project, user=alice, name="pager", url=URL)[0]
    for _ in range(30):
        delivery(webhook)
    alone = delivery(other)
    assert len(webhooks.deliveries_due()) == 2 and alone.pk in webhooks.deliveries_due()


@pytest.mark.parametrize(
    ("url", "words"),
    [("ftp://example.org/", "Write an address"), ("https://", "Write an address"), ("https://a b.org/", "Write an address"),
     ("http://example.org/", "https"), ("https://me:secret@example.org/", "name and password"), ("https://127.0.0.1/", "not a public"),
     ("https://[::1]/", "not a public"), ("https://localhost:8000/", "not a public"), ("https://db.internal/", "not a public"),
     ("https://example.org:99999/", "no address"), ("https://169.254.169.254/latest", "not a public")],
)  # fmt: skip
def test_addresses_that_cannot_be_meant_are_refused_at_their_field(url: str, words: str, project: Project, alice: User) -> None:
    with pytest.raises(ValidationError) as refused:
        webhooks.webhook_create(project=project, user=alice, name="x", url=url)
    assert words in refused.value.message_dict["url"][0]


def test_an_operator_may_let_them_reach_inner_addresses(project: Project, alice: User, settings: Any) -> None:
    settings.R1_WEBHOOKS_PRIVATE = True
    assert webhooks.webhook_create(project=project, user=alice, name="x", url="http://127.0.0.1:9/")[0].url == "http://127.0.0.1:9/"


def test_only_owners_see_and_change_them_by_the_api(
    webhook: Webhook, api_alice: APIClient, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    one = f"{API}{webhook.pk}/"
    assert api_alice.get(API).json()["results"][0]["url"] == URL
    assert api_alice.post(f"{one}ping/").status_code == 202 and len(api_alice.get(f"{one}deliveries/").json()) == 1
    for client in (api_erin, api_bob, api_charlie):
        assert client.get(API).json()["results"] == []
        for path in (one, f"{one}deliveries/"):
            assert client.get(path).status_code == 404
        assert client.post(f"{one}ping/").status_code == 404 and client.delete(one).status_code == 404
    for client in (api_erin, api_bob):
        assert client.post(API, {"name": "x", "url": URL}).status_code == 403
    assert api_charlie.post(API, {"name": "x", "url": URL, "project": webhook.project_id}).status_code == 400
    assert api_anonymous.get(API).status_code == 401


def test_the_api_shows_a_secret_once_and_says_what_is_wrong(api_alice: APIClient, project: Project) -> None:
    made = api_alice.post(API, {"name": "x", "url": URL})
    assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
    one = f"{API}{made.json()['id']}/"
    assert "secret" not in api_alice.get(one).json()
    assert api_alice.post(f"{one}renew-secret/").json()["secret"] != made.json()["secret"]
    refused = api_alice.patch(one, {"url": "https://10.0.0.1/"})
    assert refused.status_code == 400 and "url" in refused.json()["errors"]
    assert api_alice.patch(one, {"is_enabled": False}).json()["is_enabled"] is False
    assert api_alice.post(f"{one}ping/").status_code == 400
    assert api_alice.delete(one).status_code == 204 and AuditEntry.objects.filter(action="webhook.delete").exists()


def test_the_pages_are_the_owners(
    webhook: Webhook, client_alice: Client, client_erin: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    detail, act = f"/settings/webhooks/{webhook.pk}/", f"/settings/webhooks/{webhook.pk}/act/test/"
    assert client_alice.get("/settings/webhooks/").status_code == 200 and client_alice.get(detail).status_code == 200
    for other in (client_erin, client_bob):
        assert other.get("/settings/webhooks/").status_code == 403
        assert other.get(detail).status_code == 403 and other.post(act).status_code == 403
    assert client_charlie.get(detail).status_code == 404 and client_charlie.post(act).status_code == 404
    assert client.get(detail).status_code == 302
    assert client_alice.get(act).status_code == 405 and client_alice.post(f"{detail}act/dance/").status_code == 404


def test_the_page_makes_one_and_shows_its_secret_once(client_alice: Client, project: Project) -> None:
    refused = client_alice.post("/settings/webhooks/", {"name": "x", "url": "https://localhost/"})
    assert refused.status_code == 422 and "not a public address" in refused.content.decode()
    shown = client_alice.post("/settings/webhooks/", {"name": "x", "url": URL}, follow=True).content.decode()
    again = client_alice.get("/settings/webhooks/").content.decode()
    assert webhooks.webhook_secret(Webhook.objects.get()) in shown and webhooks.webhook_secret(Webhook.objects.get()) not in again
    made = Webhook.objects.get()
    client_alice.post(f"/settings/webhooks/{made.pk}/act/test/")
    assert "Waiting" in client_alice.get(f"/settings/webhooks/{made.pk}/").content.decode()
    client_alice.post(f"/settings/webhooks/{made.pk}/act/off/")
    client_alice.post(f"/settings/webhooks/{made.pk}/act/secret/")
    client_alice.post(f"/settings/webhooks/{made.pk}/act/delete/")
    assert not Webhook.objects.exists()


def test_the_list_costs_the_same_however_many_there_are(
    project: Project, alice: User, client_alice: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for number in range(12):
        delivery(webhooks.webhook_create(project=project, user=alice, name=f"w{number}", url=URL)[0])
    client_alice.get("/settings/webhooks/")
    with django_assert_max_num_queries(12):
        client_alice.get("/settings/webhooks/")


def test_whatever_is_sent_by_name_is_a_task(settings: Any) -> None:
    """A name that nobody takes would be dropped by the worker with a line in its log."""
    app.loader.import_default_modules()
    names = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    names |= {"r1platform.tasks.webhook_deliver", "training_app.tasks.alert_mail", "training_app.tasks.route"}
    assert names <= set(app.tasks)


def test_all_that_is_wrong_with_a_new_one_is_said_at_once(project: Project, client_alice: Client) -> None:
    sent = client_alice.post(reverse("settings-webhooks"), {"name": "", "url": "ftp://example.org"})
    errors = sent.context["form"].errors
    assert sent.status_code == 422 and errors["name"] == ["“Name” is empty. Give it a text of at most 80 characters."]
    assert "like https://example.org/hook" in errors["url"][0]
