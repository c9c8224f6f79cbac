"""Experts over the steps: evenness, what is read of many steps, and who may ask."""

from __future__ import annotations

import math
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from model_core.errors import DataError
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run
from training_app import selectors
from training_app.models import RunAttempt, RunEvent
from training_app.selectors import experts

pytestmark = pytest.mark.django_db


@pytest.fixture
def attempt(project: Project, alice: User, node: Node) -> RunAttempt:
    return make_attempt(make_run(project, alice, state="running"), node)


def told(attempt: RunAttempt, step: int, layers: list[list[float]], **more: Any) -> None:
    payload = {"step": step, "layers": layers, "bias": [[step / 10] * len(row) for row in layers], "max_violation": [0.5] * len(layers)}
    RunEvent.objects.create(
        run=attempt.run, attempt=attempt, seq=attempt.events.count() + 1, time=timezone.now(), kind="experts", payload={**payload, **more}
    )


def test_evenness_is_one_when_even_and_nothing_when_one_has_all(attempt: RunAttempt) -> None:
    told(attempt, 1, [[0.25] * 4, [1.0, 0, 0, 0]])
    told(attempt, 2, [[0.5, 0.5, 0, 0], [0.0] * 4])
    found = selectors.run_experts_history(attempt.run, layer=1)
    assert found["steps"] == [1, 2] and found["num_layers"] == 2
    assert found["entropy"] == [[1.0, 0.0], [round(math.log(2) / math.log(4), 5), None]]
    assert found["load"] == [[1.0, 0, 0, 0], [0.0] * 4] and found["bias_norm"][1] == [pytest.approx(0.4), pytest.approx(0.4)]


def test_a_step_that_was_made_again_counts_once_with_its_newest(attempt: RunAttempt) -> None:
    told(attempt, 1, [[0.5, 0.5]])
    told(attempt, 2, [[1.0, 0.0]])
    told(attempt, 2, [[0.9, 0.1]])
    assert selectors.run_experts_history(attempt.run)["load"] == [[0.5, 0.5], [0.9, 0.1]]


def test_of_many_steps_so_many_are_read_with_both_ends(attempt: RunAttempt, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 60):
        told(attempt, step, [[0.5, 0.5]])
    monkeypatch.setattr(experts, "MAX_STEPS", 10)
    found = selectors.run_experts_history(attempt.run)
    assert len(found["steps"]) == 10 and found["steps"][0] == 1 and found["steps"][-1] == 59 and found["num_steps"] == 59
    monkeypatch.setattr(experts, "MAX_NUMBERS", 12)
    assert len(selectors.run_experts_history(attempt.run)["steps"]) == 3


def test_a_layer_that_is_not_there_and_a_run_without_experts(attempt: RunAttempt) -> None:
    assert selectors.run_experts_history(attempt.run)["steps"] == []
    told(attempt, 1, [[0.5, 0.5]])
    with pytest.raises(DataError, match="no layer 1"):
        selectors.run_experts_history(attempt.run, layer=1)


def test_members_ask_and_strangers_do_not(
    attempt: RunAttempt, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    told(attempt, 1, [[0.5, 0.5]])
    path = f"/api/v1/runs/{attempt.run_id}/experts/history/"
    assert api_bob.get(path, {"layer": 0}).json()["load"] == [[0.5, 0.5]]
    assert api_bob.get(path, {"layer": 5}).status_code == 400
    assert api_charlie.get(path).status_code == 404 and api_anonymous.get(path).status_code == 401
