"""Training cost: sums by run, phase and day, prices, the forecast, and the published tables with this project's column."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run
from training_app import selectors
from training_app.models import PhaseRun, RunAttempt
from training_app.published_costs import R1_STAGES, V3_STAGES
from training_app.selectors.costs import _split, forecast

pytestmark = pytest.mark.django_db


def spent(project: Project, user: User, node: Node, seconds: float, *, price: float | None = None, **values: Any) -> PhaseRun:
    """A run that held one device for so long, just now."""
    config = {"budget": {"dollars_per_device_hour": price}} if price else {}
    run = make_run(project, user, state="succeeded", config=config, device_seconds=seconds, **values)
    now = timezone.now()
    attempt = make_attempt(run, node, state="succeeded")
    RunAttempt.objects.filter(pk=attempt.pk).update(started_at=now - dt.timedelta(seconds=seconds), finished_at=now)
    return run


def report(project: Project, user: User, **values: Any) -> dict[str, Any]:
    since = timezone.now() - dt.timedelta(days=30)
    return selectors.cost_report(user=user, project=project, since=since, **values)


def test_the_papers_add_up_exactly() -> None:
    assert sum(stage.dollars for stage in V3_STAGES) == 5_576_000 and sum(stage.device_hours for stage in V3_STAGES) == 2_788_000
    assert sum(stage.dollars for stage in R1_STAGES) == 294_000 and sum(stage.device_hours for stage in R1_STAGES) == 147_000


def test_a_run_is_priced_at_its_own_price_and_others_only_when_asked(project: Project, alice: User, node: Node) -> None:
    spent(project, alice, node, 3600, price=2.5)
    spent(project, alice, node, 1800)
    found = report(project, alice)
    assert found["total"]["device_seconds"] == 5400 and found["total"]["dollars"] == pytest.approx(2.5)
    assert found["total"]["num_unpriced"] == 1 and [run.cost for run in found["runs"]] == [pytest.approx(2.5), None]
    asked = report(project, alice, price=4.0)
    assert asked["total"]["dollars"] == pytest.approx(4.5) and asked["total"]["num_unpriced"] == 0
    (phase,) = asked["phases"]
    assert (phase["phase"], phase["share"], phase["article_share"]) == ("cold_start", 1.0, 0.15)
    own = next(row for row in asked["papers"][1]["rows"] if "cold start" in row["name"])
    assert own["own_seconds"] == 5400 and own["own_dollars"] == pytest.approx(4.5)
    assert asked["article"][0]["own"] == pytest.approx(4.5) and asked["article"][1]["own"] > 0


def test_days_add_up_to_what_was_held(project: Project, alice: User, node: Node) -> None:
    spent(project, alice, node, 1000)
    days = report(project, alice)["days"]
    assert sum(day["device_seconds"] for day in days) == pytest.approx(1000, abs=1)
    start = dt.datetime(2026, 1, 31, 23, 59, 30, tzinfo=dt.UTC)
    assert _split(start, start + dt.timedelta(days=1, seconds=60)) == [
        (dt.date(2026, 1, 31), 30.0), (dt.date(2026, 2, 1), 86400.0), (dt.date(2026, 2, 2), 30.0),
    ]  # fmt: skip


def test_the_forecast_goes_on_as_the_mean_of_a_week() -> None:
    today = timezone.now().date()
    found = forecast([{"day": today.isoformat(), "device_seconds": 700.0, "dollars": 7.0}])
    assert found["device_seconds"]["a_day"] == pytest.approx(100) and found["dollars"]["this_month"] == 7.0
    assert found["device_seconds"]["by_month_end"] == pytest.approx(700 + 100 * found["days_left"])


def test_who_sees_it_and_how_often_it_asks(
    project: Project, alice: User, node: Node, client_bob: Client, client_charlie: Client, api_bob: APIClient,
    api_charlie: APIClient, django_assert_max_num_queries: Any,
) -> None:
    for _run in range(4):
        spent(project, alice, node, 60, price=1.0)
    address = reverse("cost")
    with django_assert_max_num_queries(26):
        page = client_bob.get(address, {"price": "nan"}).content.decode()
    for words in ("$5,576,000", "$294,000", "about $5.58M", "over $100M", "By run", "Device time by day"):
        assert words in page, words
    assert "No run used a device" in client_charlie.get(address).content.decode()
    found = api_bob.get("/api/v1/costs/", {"project": project.slug}).json()
    assert found["total"]["num_runs"] == 4 and len(found["runs"]) == 4
    assert api_charlie.get("/api/v1/costs/", {"project": project.slug}).status_code == 400
