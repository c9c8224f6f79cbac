"""The usage page adds up what was recorded, for the members of the project alone."""

from __future__ import annotations

import datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from r1platform.keys import api_key_create
from r1platform.models import Project
from serving_app.models import UsageRecord
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
