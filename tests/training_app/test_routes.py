"""Routing of a text: who asks which checkpoint, what the process is given, and what becomes of its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from model_core.rundir import write_json
from r1platform.models import Node, Project
from tests.training_app.rows import make_run
from tests.training_app.stored_rollouts import run_with_rollouts
from training_app import routes
from training_app.models import Checkpoint, PhaseRun, RoutedText
from training_app.routes import route_dir, route_start

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project: Project, alice: User, node: Node) -> PhaseRun:
    made = run_with_rollouts(project, alice, node)
    Checkpoint.objects.create(run=made, attempt=made.attempts.get(), step=2)
    return made


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run."""
    argvs: list[list[str]] = []

    def spawn(argv: Sequence[str], *, env: dict[str, str], **_more: Any) -> None:
        assert "R1_SECRET_KEY" not in env
        argvs.append(list(argv))

    monkeypatch.setattr(routes, "spawn", spawn)
    return argvs


def asked(run: PhaseRun, **values: Any) -> dict[str, Any]:
    return {"checkpoint": run.checkpoints.get().pk, "prompt": "1+1?", "completion": "2", **values}


def test_a_text_is_asked_for_started_once_and_answered(run: PhaseRun, api_erin: APIClient, started: list[list[str]]) -> None:
    base = f"/api/v1/runs/{run.pk}/routes/"
    made = api_erin.post(base, asked(run))
    assert made.status_code == 201 and api_erin.get(f"{base}{made.json()['id']}/").json()["state"] == "working"
    routed = RoutedText.objects.get()
    route_start(routed)
    route_start(routed)
    (argv,) = started
    assert argv[1:4] == ["-m", "model_core", "route"] and argv[4].endswith("step_00000002/model")
    lines = [json.loads(line) for line in (route_dir(routed) / "texts.jsonl").read_text().splitlines()]
    assert lines[0] == {"prompt": "1+1?", "completion": "2", "domain": "this text"}
    assert [line["domain"] for line in lines[1:]] == ["sums"]
    write_json(route_dir(routed) / "out.json", {"tokens": ["1"], "num_experts": 4})
    told = api_erin.get(f"{base}{routed.pk}/").json()
    assert told["state"] == "done" and told["tokens"] == ["1"] and told["prompt"] == "1+1?"
    assert [one["id"] for one in api_erin.get(base).json()] == [routed.pk]


def test_an_error_of_the_process_and_silence_are_told(run: PhaseRun, api_erin: APIClient) -> None:
    base = f"/api/v1/runs/{run.pk}/routes/"
    first = api_erin.post(base, asked(run)).json()["id"]
    assert api_erin.post(base, asked(run)).status_code == 400, "one at a time"
    route_dir(RoutedText.objects.get()).mkdir(parents=True)
    write_json(route_dir(RoutedText.objects.get()) / "out.json", {"error": {"message": "No experts.", "field": ""}})
    assert api_erin.get(f"{base}{first}/").json()["error"] == "No experts."
    second = api_erin.post(base, asked(run)).json()["id"]
    RoutedText.objects.filter(pk=second).update(created_at=timezone.now() - timedelta(minutes=6))
    assert "No answer came" in api_erin.get(f"{base}{second}/").json()["error"]


def test_what_cannot_be_asked_is_said_at_its_field(run: PhaseRun, project: Project, alice: User, api_erin: APIClient) -> None:
    base, other = f"/api/v1/runs/{run.pk}/routes/", make_run(project, alice)
    for values, field in ((asked(run, prompt="  "), "prompt"), (asked(run, prompt="x" * 20_001), "prompt"),
                          (asked(run, checkpoint=0), "checkpoint")):  # fmt: skip
        refused = api_erin.post(base, values)
        assert refused.status_code == 400 and field in refused.json()["errors"]
    elsewhere = api_erin.post(f"/api/v1/runs/{other.pk}/routes/", asked(run))
    assert elsewhere.status_code == 400 and "checkpoint" in elsewhere.json()["errors"]
    Checkpoint.objects.update(removed_at=timezone.now())
    assert api_erin.post(base, asked(run, checkpoint=Checkpoint.objects.get().pk)).status_code == 400


def test_a_text_of_another_run_is_not_found_under_this_one(run: PhaseRun, project: Project, alice: User, api_erin: APIClient) -> None:
    one = api_erin.post(f"/api/v1/runs/{run.pk}/routes/", asked(run)).json()["id"]
    assert api_erin.get(f"/api/v1/runs/{make_run(project, alice).pk}/routes/{one}/").status_code == 404
