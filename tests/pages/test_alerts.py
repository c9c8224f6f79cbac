"""The pages and the API of alerts: who sees and changes them, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from r1platform.models import Project
from tests.pages.b_rows import make_run
from training_app import services
from training_app.models import Alert, AlertRule, PhaseRun

pytestmark = pytest.mark.django_db
API = "/api/v1"
SENT = {"name": "KL", "kind": "above", "metric": "kl", "threshold": "1", "steps": "2"}


@pytest.fixture
def run(project: Project) -> PhaseRun:
    return make_run(project)


@pytest.fixture
def rule(project: Project, alice: User) -> AlertRule:
    return services.alert_rule_create(project=project, user=alice, name="KL", kind="above", metric="kl", threshold=1.0)


@pytest.fixture
def alert(run: PhaseRun, rule: AlertRule) -> Alert:
    return Alert.objects.create(project=run.project, run=run, rule=rule, name="KL", message="kl is 2 at step <7>.", step=7)


def test_members_look_and_editors_change(
    rule: AlertRule, alert: Alert, client_alice: Client, client_erin: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    edit, act = f"/settings/alerts/{rule.pk}/", f"/settings/alerts/{rule.pk}/act/off/"
    see, usual = f"/runs/alerts/{alert.pk}/see/", "/settings/alerts/usual/"
    for path in ("/settings/alerts/", "/runs/alerts/"):
        assert client_bob.get(path).status_code == 200 and client.get(path).status_code == 302
        assert b"KL" in client_bob.get(path).content and b"kl above" not in client_charlie.get(path).content
    assert client_erin.get(edit).status_code == 200 and client_bob.get(edit).status_code == 403
    assert client_charlie.get(edit).status_code == 404
    for path in (act, see, usual):
        assert client_bob.post(path).status_code == 403 and client.post(path).status_code == 302
    for path in (act, see):
        assert client_charlie.post(path).status_code == 404 and client_alice.get(path).status_code == 405
    assert client_bob.post("/settings/alerts/", SENT).status_code == 403
    assert AlertRule.objects.count() == 1 and alert.run.alerts.filter(resolved_at=None).exists()


def test_a_rule_is_made_changed_switched_off_and_deleted(project: Project, client_erin: Client) -> None:
    said = client_erin.post("/settings/alerts/", SENT, follow=True).content.decode()
    assert "kl above 1, 2 measurements in a row" in said
    made = AlertRule.objects.get()
    client_erin.post(f"/settings/alerts/{made.pk}/", {**SENT, "threshold": "0.5"})
    made.refresh_from_db()
    assert made.threshold == 0.5 and made.version == 2
    client_erin.post(f"/settings/alerts/{made.pk}/act/off/")
    made.refresh_from_db()
    assert not made.is_enabled
    assert client_erin.post(f"/settings/alerts/{made.pk}/act/sing/").status_code == 404
    client_erin.post(f"/settings/alerts/{made.pk}/act/delete/")
    assert not AlertRule.objects.exists()
    assert "9 rules look from now on." in client_erin.post("/settings/alerts/usual/", follow=True).content.decode()


def test_what_is_missing_is_said_at_its_field(client_erin: Client) -> None:
    answer = client_erin.post("/settings/alerts/", {**SENT, "metric": ""})
    assert answer.status_code == 422 and "metric" in answer.context["form"].errors and not AlertRule.objects.exists()


def test_an_open_alert_stands_on_the_page_of_its_run_until_it_is_seen(alert: Alert, client_erin: Client, client_bob: Client) -> None:
    page = f"/runs/{alert.run_id}/"
    assert "kl is 2 at step &lt;7&gt;." in client_bob.get(page).content.decode()
    assert f"/runs/alerts/{alert.pk}/see/" not in client_bob.get(page).content.decode()
    assert "closed, with your name" in client_erin.post(f"/runs/alerts/{alert.pk}/see/", {"note": "Fine."}, follow=True).content.decode()
    assert "kl is 2" not in client_bob.get(page).content.decode()
    assert "Fine." in client_bob.get(f"{page}history/").content.decode()
    assert "closed before" in client_erin.post(f"/runs/alerts/{alert.pk}/see/", {"back": "list"}, follow=True).content.decode()


def test_the_list_is_filtered_and_teaches_when_it_is_empty(alert: Alert, client_bob: Client) -> None:
    assert [one.pk for one in client_bob.get("/runs/alerts/", {"q": "step"}).context["page"]] == [alert.pk]
    assert not client_bob.get("/runs/alerts/", {"q": "zzz"}).context["page"].object_list
    assert not client_bob.get("/runs/alerts/", {"show": "over"}).context["page"].object_list
    Alert.objects.all().delete()
    assert "1 rule looks" in client_bob.get("/runs/alerts/").content.decode()


def test_the_lists_cost_the_same_however_long_they_are(
    project: Project, run: PhaseRun, alice: User, client_bob: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for number in range(20):
        made = services.alert_rule_create(project=project, user=alice, name=f"rule {number}", kind="ended", mail_to=[alice])
        Alert.objects.create(project=run.project, run=run, rule=made, name=made.name, message="x")
    for path in ("/settings/alerts/", "/runs/alerts/"):
        client_bob.get(path)
        with django_assert_max_num_queries(16):
            client_bob.get(path)


def test_rules_by_the_api(
    project: Project, bob: User, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    made = api_erin.post(f"{API}/alert-rules/", {**SENT, "mail_to": ["bob"]})
    assert made.status_code == 201 and made.json()["condition"] == "kl above 1, 2 measurements in a row"
    one = f"{API}/alert-rules/{made.json()['id']}/"
    assert api_bob.get(one).json()["mail_to"] == ["bob"] and api_charlie.get(one).status_code == 404
    assert api_anonymous.get(one).status_code == 401
    assert api_bob.patch(one, {"steps": 3}).status_code == 403 and api_bob.post(f"{API}/alert-rules/", SENT).status_code == 403
    assert api_erin.patch(one, {"steps": 3}).json()["steps"] == 3
    refused = api_erin.patch(one, {"kind": "stall"})
    assert refused.status_code == 400 and "seconds" in refused.json()["errors"]
    assert api_charlie.delete(one).status_code == 404 and api_erin.delete(one).status_code == 204


def test_alerts_by_the_api(alert: Alert, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient) -> None:
    one = f"{API}/alerts/{alert.pk}/"
    assert [found["id"] for found in api_bob.get(f"{API}/alerts/", {"is_open": "true"}).json()["results"]] == [alert.pk]
    assert api_charlie.get(f"{API}/alerts/").json()["results"] == [] and api_charlie.get(one).status_code == 404
    assert api_anonymous.get(one).status_code == 401 and api_bob.post(f"{one}see/").status_code == 403
    seen = api_erin.post(f"{one}see/", {"note": "I restart it."}).json()
    assert seen["resolved_by"] == "erin" and seen["resolution"] == "I restart it."
    assert api_bob.get(f"{API}/alerts/", {"is_open": "true"}).json()["results"] == []
