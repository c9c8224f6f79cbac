"""The usage page adds up what was recorded, for the members of the project alone."""

from __future__ import annotations

import csv
import datetime
import io
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from r1platform.keys import api_key_create
from r1platform.models import ApiKey, Project
from serving_app.models import Deployment, Price, UsageRecord
from serving_app.services.prices import PER_TIME, PER_TOKEN
from tests.pages.b_rows import make_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def records(project: Project, alice: User) -> None:
    key, _secret = api_key_create(user=alice, name="notebook", scopes=("inference",), project=project)
    for number in range(12):
        made = UsageRecord.objects.create(
            project=project,
            model_name="a" if number % 2 else "b",
            api_key=key if number % 3 else None,
            user=alice,
            prompt_tokens=10,
            completion_tokens=20,
            reasoning_tokens=5,
            status=500 if number == 0 else 200,
        )
        UsageRecord.objects.filter(pk=made.pk).update(created_at=timezone.now() - datetime.timedelta(days=number * 4))


def test_sums_are_the_sums(records: None, client_bob: Client) -> None:
    context = client_bob.get(reverse("usage"), {"days": "90"}).context
    assert context["total"]["num_requests"] == 12 and context["total"]["num_failed"] == 1
    assert context["total"]["prompt_tokens"] == 120 and context["total"]["completion_tokens"] == 240
    assert sum(row["completion_tokens"] for row in context["by_model"]) == 240
    assert sum(row["num_requests"] for row in context["by_key"]) == 12
    assert sum(day["prompt_tokens"] for day in context["by_day"]) == 120


@pytest.mark.parametrize(("query", "requests"), [({"days": "7"}, 2), ({"days": "x"}, 8)])
def test_the_period_narrows_it(query: dict[str, str], requests: int, records: None, client_alice: Client) -> None:
    assert client_alice.get(reverse("usage"), query).context["total"]["num_requests"] == requests


def test_training_time_is_listed_by_run(project: Project, client_alice: Client) -> None:
    make_run(project, name="costly", device_seconds=120.0, budget_device_seconds=240.0)
    context = client_alice.get(reverse("usage")).context
    assert context["device_seconds"] == 120 and context["runs"][0]["fraction"] == 0.5


def test_nobody_sees_the_usage_of_others(records: None, client_charlie: Client, client: Client) -> None:
    assert client_charlie.get(reverse("usage"), {"days": "90"}).context["total"]["num_requests"] == 0
    assert client.get(reverse("usage")).status_code == 302


def test_an_empty_page_teaches(client_alice: Client) -> None:
    assert "Tokens are counted for every request" in client_alice.get(reverse("usage")).content.decode()


@pytest.fixture
def deployment(project: Project, alice: User) -> Deployment:
    return Deployment.objects.create(project=project, name="sums", state="stopped", desired_replicas=0, created_by=alice)


def test_a_price_is_set_by_editors_and_shown(
    deployment: Deployment, client_erin: Client, client_bob: Client, client_charlie: Client, api_erin: APIClient
) -> None:
    url = reverse("deployment-price", args=[deployment.pk])
    given = {"input_dollars": "0.55", "cached_dollars": "0.14", "output_dollars": "2.19", "device_hour_dollars": "0"}
    assert client_bob.post(url, given).status_code == 403 and client_charlie.post(url, given).status_code == 404
    assert client_erin.post(url, given).status_code == 302
    price = Price.objects.get(deployment=deployment)
    assert (price.input_dollars, price.cached_dollars, price.output_dollars) == (Decimal("0.55"), Decimal("0.14"), Decimal("2.19"))
    page = client_erin.get(reverse("usage")).content.decode()
    assert "$0.550 / $0.140 / $2.190 per million tokens" in page and f'action="{url}"' in page
    assert f'action="{url}"' not in client_bob.get(reverse("usage")).content.decode()
    answer = api_erin.put(f"/api/v1/deployments/{deployment.pk}/price/", {"device_hour_dollars": "2"}, format="json")
    assert answer.status_code == 200 and answer.json()["input_dollars"] == "0.000"
    assert api_erin.get(f"/api/v1/deployments/{deployment.pk}/price/").json()["device_hour_dollars"] == "2.000"


@pytest.mark.parametrize(
    ("given", "field"),
    [({"input_dollars": "1", "device_hour_dollars": "2"}, "device_hour_dollars"), ({"output_dollars": "-1"}, "output_dollars"),
     ({"output_dollars": "0.0001"}, "output_dollars"), ({"input_dollars": "1000001"}, "input_dollars"),
     ({"input_dollars": "NaN"}, "input_dollars")],
)  # fmt: skip
def test_an_impossible_price_is_refused_at_its_field(
    deployment: Deployment, api_erin: APIClient, client_erin: Client, given: dict[str, str], field: str
) -> None:
    answer = api_erin.put(f"/api/v1/deployments/{deployment.pk}/price/", given, format="json")
    assert answer.status_code == 400 and field in answer.json()["errors"], answer.json()
    shown = client_erin.post(reverse("deployment-price", args=[deployment.pk]), {**dict.fromkeys(PER_TOKEN, "0"), PER_TIME: "0", **given})
    assert shown.status_code == 302 and not Price.objects.exists()


def test_the_export_and_the_api_have_every_day_model_key_and_user(
    records: None, client_bob: Client, api_bob: APIClient, client_charlie: Client
) -> None:
    UsageRecord.objects.update(cost_dollars=Decimal("0.000000001"))
    UsageRecord.objects.filter(model_name="a").update(model_name="=1+1", cached_tokens=3)
    answer = client_bob.get(reverse("usage-export"), {"days": "90"})
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert answer["Content-Type"].startswith("text/csv") and answer["Content-Disposition"].startswith("attachment")
    assert len(rows) == 12 and sum(int(row["prompt_tokens"]) for row in rows) == 120
    assert {row["model"] for row in rows} == {"'=1+1", "b"}, "no cell is a formula"
    assert sum(Decimal(row["cost_dollars"]) for row in rows) == Decimal("0.000000012")
    assert {(row["user"], row["key"]) for row in rows} == {("alice", "notebook"), ("alice", "")}
    told = api_bob.get("/api/v1/usage/rows/", {"since": "2000-01-01"}).json()["rows"]
    assert [row["day"] for row in told] == [row["day"] for row in rows] and sum(row["cached_tokens"] for row in told) == 18
    assert len(client_charlie.get(reverse("usage-export"), {"days": "90"}).content.splitlines()) == 1


def test_money_is_shown_by_key_and_beside_its_limit(records: None, client_alice: Client) -> None:
    ApiKey.objects.update(dollars_per_month=Decimal(8))
    UsageRecord.objects.update(cost_dollars=Decimal("0.25"), created_at=timezone.now())
    context = client_alice.get(reverse("usage")).context
    assert context["total"]["cost_dollars"] == 3 and [row["cost_dollars"] for row in context["by_user"]] == [3]
    [budget] = context["budgets"]
    assert (budget["spent"], budget["limit"], budget["fraction"]) == (2, 8, 0.25)
