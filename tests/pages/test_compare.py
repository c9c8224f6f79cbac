"""Runs side by side: who may, what is refused, that numbers and differences are right, and a cost that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.test import APIClient

from r1platform.models import Project
from tests.pages.b_rows import CONFIG, make_run
from tests.training_app.rows import put_series
from training_app.models import PhaseRun
from training_app.selectors.comparing import MAX_RUNS, better_of
from training_app.views.runs_compare import PARTS

pytestmark = pytest.mark.django_db
API = "/api/v1/runs"


@pytest.fixture
def runs(project: Project) -> list[PhaseRun]:
    """Two that differ in a seed and in a block that one of them has."""
    first = make_run(project, state="succeeded")
    second = make_run(project, name="worse sums", config={**CONFIG, "seed": 3, "optimizer": {"lr": 0.1}})
    put_series(first, "loss", {step: 10.0 - step for step in range(500)} | {500: -1.0})
    put_series(first, "eval/accuracy", {0: 0.5, 24: 0.9, 48: 0.8})
    put_series(second, "loss", {0: 4.0, 1: None, 2: 3.0})
    return [first, second]


def address(runs: list[PhaseRun], **more: str) -> str:
    query = "&".join(f"{key}={value}" for key, value in more.items())
    return f"{reverse('runs-compare')}?runs={','.join(str(run.pk) for run in runs)}&{query}"


@pytest.mark.parametrize("part", PARTS)
def test_members_compare_and_strangers_do_not_learn_that_the_runs_exist(
    part: str, runs: list[PhaseRun], client_alice: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    assert client_alice.get(address(runs, part=part)).status_code == 200
    assert client_bob.get(address(runs, part=part)).status_code == 200
    assert client_charlie.get(address(runs, part=part)).status_code == 404
    assert client.get(address(runs, part=part)).status_code == 302


@pytest.mark.parametrize("path", ["metrics", "compare"])
def test_the_api_is_guarded_as_the_page(
    path: str, runs: list[PhaseRun], api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    asked = f"{API}/{path}/?runs={runs[0].pk},{runs[1].pk}"
    assert api_bob.get(asked).status_code == 200
    assert api_charlie.get(asked).status_code == 404
    assert api_anonymous.get(asked).status_code in {401, 403}


@pytest.mark.parametrize("given", ["", "x", "1,-2", "9" * 30, ",".join(map(str, range(MAX_RUNS + 1)))])
def test_what_is_no_list_of_runs_is_said_at_its_field(given: str, api_alice: APIClient, client_alice: Client) -> None:
    answer = api_alice.get(f"{API}/compare/?runs={given}")
    assert answer.status_code == 400 and "runs" in str(answer.json())
    page = client_alice.get(f"{reverse('runs-compare')}?runs={given}")
    assert page.status_code == 200 and b"No run is chosen" in page.content
    assert (b'role="alert"' in page.content) == bool(given)


def test_a_column_that_does_not_exist_is_refused(runs: list[PhaseRun], api_alice: APIClient) -> None:
    answer = api_alice.get(f"{API}/metrics/?runs={runs[0].pk}&columns=x,median")
    assert answer.status_code == 400 and "columns" in str(answer.json())


def test_settings_that_differ_and_the_last_and_best_of_each_measure(runs: list[PhaseRun], api_alice: APIClient) -> None:
    found = api_alice.get(f"{API}/compare/?runs={runs[1].pk},{runs[0].pk},{runs[1].pk}").json()
    assert [run["id"] for run in found["runs"]] == [runs[1].pk, runs[0].pk], "in the order asked, each once"
    assert {one["path"]: one["values"] for one in found["settings"]} == {"seed": [3, 0], "optimizer.lr": [0.1, None]}
    by_name = {one["name"]: one for one in found["measures"]}
    assert by_name["loss"]["better"] == "lower" and by_name["loss"]["values"] == [
        {"last": 3.0, "best": 3.0, "min": 3.0, "max": 4.0}, {"last": -1.0, "best": -489.0, "min": -489.0, "max": 10.0},
    ]  # fmt: skip
    assert by_name["eval/accuracy"]["values"] == [None, {"last": 0.8, "best": 0.9, "min": 0.5, "max": 0.9}]


def test_many_runs_answer_in_the_same_buckets_and_small(runs: list[PhaseRun], api_alice: APIClient) -> None:
    asked = f"{API}/metrics/?runs={runs[0].pk},{runs[1].pk}&names=loss&columns=x,min,max,tokens&to=400&buckets=100"
    plain, packed = api_alice.get(asked), api_alice.get(asked, HTTP_ACCEPT_ENCODING="gzip")
    assert packed["Content-Encoding"] == "gzip" and len(packed.content) < len(plain.content) / 2
    assert "Accept-Encoding" in packed["Vary"] and "Content-Encoding" not in plain.headers
    (first,), (second,) = [one["series"] for one in plain.json()["runs"]]
    assert set(first) == {"name", "unit", "x", "min", "max", "tokens"} and len(first["x"]) <= 100
    assert (min(first["min"]), max(first["max"]), first["x"][-1]) == (-390.0, 10.0, 400)
    assert second["x"] == [2] and (second["min"], second["max"]) == ([3.0], [4.0]) and plain.json()["width"] > 2


def test_the_table_marks_the_best_and_the_settings_say_what_is_not_set(runs: list[PhaseRun], client_alice: Client) -> None:
    table = client_alice.get(address(runs, part="table")).content.decode()
    assert "<strong>best −489</strong>" in table and "best 3" in table and "<strong>best 3" not in table
    settings = client_alice.get(address(runs, part="settings")).content.decode()
    assert "optimizer.lr" in settings and "not set" in settings and "checkpoint" not in settings


def test_the_same_configuration_says_so(runs: list[PhaseRun], client_alice: Client, project: Project) -> None:
    same = client_alice.get(address([runs[0], make_run(project)], part="settings")).content
    assert b"All 2 runs have the same configuration." in same


@pytest.mark.parametrize("part", PARTS)
def test_the_cost_does_not_grow_with_the_runs(part: str, runs: list[PhaseRun], project: Project, client_alice: Client) -> None:
    def queries(chosen: list[PhaseRun]) -> int:
        with CaptureQueriesContext(connection) as found:
            assert client_alice.get(address(chosen, part=part)).status_code == 200
        return len(found)

    few = queries(runs)
    more = [make_run(project) for _ in range(8)]
    for run in more:
        put_series(run, "loss", {0: 1.0, 70: 2.0})
    assert queries(runs + more) == few


@pytest.mark.parametrize(
    ("name", "word"), [("eval/accuracy", "higher"), ("eval/loss", "lower"), ("loss/mtp", "lower"), ("kl", "lower"), ("lr", ""), ("len/mean", "")]
)
def test_what_is_better_is_said_only_where_it_is_known(name: str, word: str) -> None:
    assert better_of(name) == word


def test_the_table_of_runs_leads_there(runs: list[PhaseRun], client_bob: Client) -> None:
    page: Any = client_bob.get(reverse("run-list")).content.decode()
    assert f'form="compare" value="{runs[0].pk}"' in page and f'action="{reverse("runs-compare")}"' in page
