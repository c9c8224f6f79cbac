"""A choice among thousands: the newest are offered, a search reaches all, and neither scripts nor a clash loses the choice."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run
from training_app import search_fields
from training_app.models import Checkpoint, Dataset, DatasetVersion, PhaseRun
from training_app.views.runs_new import RunForm


@pytest.fixture
def versions(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[DatasetVersion]:
    """Six ready ones, of which a select offers three."""
    monkeypatch.setattr(search_fields, "NUM_OFFERED", 3)
    named = [Dataset.objects.create(project=project, name=name) for name in ("Stories", "Sums")]
    ready = {"state": "ready", "manifest": {}, "sha256": "ab" * 32, "num_rows": 10, "num_held_out": 5, "config": {}}
    return [DatasetVersion.objects.create(dataset=named[number % 2], number=number, **ready) for number in range(1, 7)]


def options(html: str) -> list[str]:
    return [value for value in re.findall(r'<option value="(\d*)"', html) if value]


def form(project: Project, **data: Any) -> RunForm:
    return RunForm({"name": "n", **data}, project=project, phase="cold_start")


def test_the_newest_are_offered_and_the_chosen_is_among_them(project: Project, versions: list[DatasetVersion]) -> None:
    made = RunForm(project=project, phase="cold_start", initial={"dataset_version": versions[0].pk})
    drawn = str(made["dataset_version"])
    assert options(drawn) == [str(row.pk) for row in (versions[0], versions[5], versions[4])]
    assert f'<option value="{versions[0].pk}" selected>' in drawn and 'type="search"' in drawn
    DatasetVersion.objects.filter(pk__in=[row.pk for row in versions[3:]]).delete()
    assert 'type="search"' not in str(RunForm(project=project, phase="cold_start")["dataset_version"]), "none is hidden"


@pytest.mark.parametrize(("text", "numbers"), [("sums", [4, 2, 0]), ("STORIES", [5, 3, 1]), ("sums v3 · rows", [2]), ("sums v2", [])])
def test_every_word_of_a_search_counts(
    project: Project, versions: list[DatasetVersion], client_erin: Client, text: str, numbers: list[int]
) -> None:
    url = reverse("choice-list", args=[project.pk, "versions"])
    answer = client_erin.get(url, {"name": "v", "v_search": text, "empty": "None <b>"}).content.decode()
    assert options(answer) == [str(versions[number].pk) for number in numbers]
    assert "<b>" not in answer and ("Nothing fits" in answer) is (not numbers)
    assert answer.count(" selected") == 1, "the first that fits is chosen, or nothing"


def test_without_scripts_sending_the_form_searches(project: Project, versions: list[DatasetVersion]) -> None:
    sent = form(project, dataset_version=versions[4].pk, dataset_version_search="stories")
    assert "does not fit the search “stories”" in str(sent.errors["dataset_version"])
    drawn = str(sent["dataset_version"])
    assert options(drawn) == [str(versions[number].pk) for number in (5, 3, 1)] and 'value="stories"' in drawn
    assert form(project, dataset_version=versions[1].pk, dataset_version_search="stories").is_valid()
    assert not form(project, dataset_version="x", dataset_version_search="stories").is_valid()
    assert not form(project, dataset_version="", dataset_version_search="").is_valid(), "this phase needs data"


def test_checkpoints_and_runs_are_found_by_number_and_name(project: Project, alice: User, client_alice: Client, node: Node) -> None:
    runs = [make_run(project, alice), make_run(project, alice)]
    PhaseRun.objects.filter(pk=runs[1].pk).update(name="warm")
    first, second = (make_attempt(run, node) for run in runs)
    steps = [Checkpoint.objects.create(run=runs[0], attempt=first, step=n, is_final=n == 2) for n in (1, 2, 3)]
    Checkpoint.objects.create(run=runs[1], attempt=second, step=7777)

    def found(kind: str, text: str) -> list[str]:
        url = reverse("choice-list", args=[project.pk, kind])
        return options(client_alice.get(url, {"name": "c", "c_search": text}).content.decode())

    assert found("checkpoints", f"Run {runs[0].pk} cold final") == [str(steps[1].pk)]
    assert len(found("checkpoints", "7777")) == 1 and found("answering", "cold")[0] == str(steps[1].pk), "final ones first"
    assert found("runs", "warm") == [str(runs[1].pk)] and str(runs[0].pk) in found("runs", str(runs[0].pk))


def test_only_members_search(project: Project, versions: list[DatasetVersion], client_charlie: Client, client_erin: Client) -> None:
    assert client_charlie.get(reverse("choice-list", args=[project.pk, "versions"])).status_code == 404
    assert client_erin.get(reverse("choice-list", args=[project.pk, "users"])).status_code == 404
