"""Alerts of keys that come near their money: once a month and threshold, whoever looks, told as the rule says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connections
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from model_core.errors import ConfigError
from r1platform.keys import api_key_create, api_key_limit, api_key_revoke
from r1platform.models import ApiKey, Project, WebhookDelivery
from r1platform.webhooks import webhook_create
from serving_app import spending_alerts
from serving_app.models import UsageRecord
from serving_app.spending_alerts import spending_look
from training_app import services
from training_app.alert_messages import alert_mail, mails_due
from training_app.models import Alert, AlertRule

Spend = Callable[..., None]


@pytest.fixture
def key(project: Project, alice: User) -> ApiKey:
    """It may spend $10 a month."""
    return api_key_create(user=alice, name="ci", scopes=["inference"], project=project, dollars_per_month=Decimal(10))[0]


@pytest.fixture
def spend(project: Project, alice: User) -> Spend:
    def made(key: ApiKey, dollars: str) -> None:
        UsageRecord.objects.create(project=project, user=alice, api_key=key, model_name="sums", cost_dollars=Decimal(dollars))

    return made


@pytest.fixture
def rule(project: Project, alice: User) -> Callable[..., AlertRule]:
    def made(percent: float = 80, **values: Any) -> AlertRule:
        given = {"name": f"At {percent}", "kind": "money", "threshold": percent, **values}
        return services.alert_rule_create(project=project, user=alice, **given)

    return made


def told() -> list[tuple[str, bool]]:
    """Name of the rule and whether it is open, in order."""
    return [(alert.name, alert.resolved_at is None) for alert in Alert.objects.order_by("pk")]


@pytest.mark.django_db
def test_each_threshold_calls_once_a_month_and_is_over_with_it(
    key: ApiKey, spend: Spend, rule: Any, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(80), rule(100)
    spend(key, "7.999999999")
    assert spending_look() == 0
    spend(key, "0.000000001")
    assert spending_look() == 1 and spending_look() == 0 and told() == [("At 80", True)]
    now = timezone.now()
    assert Alert.objects.get().message == (
        f"The key “ci” (r1_{key.prefix}) has spent $8.00 of the $10.00 that it may spend in {now:%B %Y}, 80\u202f%."
    )
    services.alert_see(alert=Alert.objects.get(), user=alice, note="I know.")
    spend(key, "2.5")
    assert spending_look() == 1 and told() == [("At 80", False), ("At 100", True)], "what was seen is not told again"
    following = now.year + now.month // 12, now.month % 12 + 1
    monkeypatch.setattr(spending_alerts, "this_month", lambda: following)
    assert spending_look() == 0 and told() == [("At 80", False), ("At 100", False)]
    assert Alert.objects.get(name="At 100").resolution == "It has spent $0.00 of $10.00 this month."
    later = timezone.now() + timedelta(days=32)
    UsageRecord.objects.create(api_key=key, model_name="sums", cost_dollars=Decimal(9), created_at=later)
    assert spending_look() == 1 and told()[2:] == [("At 80", True)], "another month is another call"


@pytest.mark.django_db
def test_a_raised_limit_ends_it_and_can_be_neared_again(key: ApiKey, spend: Spend, rule: Any, alice: User) -> None:
    rule(80)
    spend(key, "9")
    spending_look()
    api_key_limit(key=key, by=alice, dollars_per_month=Decimal(20))
    assert spending_look() == 0 and told() == [("At 80", False)]
    assert Alert.objects.get().resolution == "It has spent $9.00 of $20.00 this month."
    spend(key, "8")
    assert spending_look() == 1
    api_key_revoke(key=key, by=alice)
    spending_look()
    assert told() == [("At 80", False), ("At 80", False)] and Alert.objects.latest("pk").resolution == "The key was revoked."


@pytest.mark.django_db
def test_only_keys_of_the_project_and_the_rule_makers_own_are_told_of(
    key: ApiKey, spend: Spend, rule: Any, alice: User, erin: User, charlie: User
) -> None:
    """A key without a project is nobody's to tell of but its own user's, who made the rule."""
    rule(80), rule(80, name="Off", is_enabled=False)
    limit = {"scopes": ["inference"], "dollars_per_month": Decimal(1)}
    own, hers, others = (api_key_create(user=user, name=user.username, **limit)[0] for user in (alice, erin, charlie))
    free = api_key_create(user=alice, name="free", scopes=["inference"])[0]
    for one in (key, own, hers, others, free):
        spend(one, "50")
    assert spending_look() == 2
    assert {alert.api_key for alert in Alert.objects.all()} == {key, own}


@pytest.mark.django_db(transaction=True)
def test_of_many_that_look_at_once_one_tells(key: ApiKey, spend: Spend, rule: Any, project: Project, alice: User, settings: Any) -> None:
    """One alert, one mail, one delivery."""
    settings.R1_EMAIL_URL = "smtp://mail.example.org"
    User.objects.filter(pk=alice.pk).update(email="alice@example.org")
    hook = webhook_create(project=project, user=alice, name="Chat", url="https://hooks.example.org/")[0]
    rule(80, mail_to=[alice], webhook=hook)
    spend(key, "8.5")

    def look(_number: int) -> int:
        try:
            return spending_look()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(look, range(16))) == 1
    assert told() == [("At 80", True)]
    delivery = WebhookDelivery.objects.get()
    assert delivery.event == "alert.raised" and f'"prefix": "r1_{key.prefix}"' in delivery.body
    assert [alert_mail(due) for due in mails_due()] == [True]
    (sent,) = mail.outbox
    assert sent.subject == "At 80: key “ci”" and "has spent $8.50 of the $10.00" in sent.body and "/usage/?project=sums" in sent.body
    assert spending_look() == 0 and WebhookDelivery.objects.count() == 1


@pytest.mark.django_db
def test_pages_and_api(
    key: ApiKey, spend: Spend, project: Project, client_erin: Client, client_bob: Client, client_charlie: Client, api_bob: APIClient
) -> None:
    answer = client_erin.post("/settings/alerts/", {"name": "Near", "kind": "money", "threshold": "", "steps": "1"})
    assert answer.status_code == 422 and "threshold" in answer.context["form"].errors
    page = client_erin.post("/settings/alerts/", {"name": "Near", "kind": "money", "threshold": "75", "steps": "1"}, follow=True)
    assert "a key has spent 75 % of its dollars a month" in page.content.decode()
    spend(key, "8")
    spending_look()
    alert = Alert.objects.get()
    assert "Key “ci”" in client_bob.get("/runs/alerts/?q=ci").content.decode()
    assert "ci" not in client_charlie.get("/runs/alerts/").content.decode().partition("<main")[2]
    listed = api_bob.get(f"/api/v1/alerts/?api_key={key.pk}").json()["results"]
    assert [(one["id"], one["run"], one["key_name"], one["project"]) for one in listed] == [(alert.pk, None, "ci", project.pk)]
    assert client_bob.post(f"/runs/alerts/{alert.pk}/see/").status_code == 403
    assert client_charlie.post(f"/runs/alerts/{alert.pk}/see/").status_code == 404
    assert client_erin.post(f"/runs/alerts/{alert.pk}/see/").url == "/runs/alerts/"
    alert.refresh_from_db()
    assert alert.resolved_at is not None


@pytest.mark.django_db
@pytest.mark.parametrize("percent", [None, 0, -1, 100.5, float("nan")])
def test_a_threshold_is_a_percentage(percent: Any, rule: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        rule(percent)
    assert refused.value.field == "threshold" and not AlertRule.objects.exists()
