"""A budget in every unit: shared out over phases, used over attempts, what is left told to the next one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.test import APIClient

from model_core.config import RunConfig, RunPaths
from model_core.errors import ConfigError
from model_core.rundir import RunDir, used_until, write_json
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, make_version, put_checkpoint, rundir_of, scalars, tell
from training_app import services
from training_app.budgets import budget_left, has_budget_left, limits_of, uses_of
from training_app.ingest import Ingest, device_seconds_of, tokens_of
from training_app.models import PhaseRun, Pipeline, RunAttempt
from training_app.supervisor import AttemptSupervisor
from training_app.verdict import attempt_finish

pytestmark = pytest.mark.django_db
BUDGET = {"device_seconds": 1000.0, "wall_seconds": 600.0, "dollars": 5.0, "dollars_per_device_hour": 36.0, "tokens": 2000}
PHASE = {"phase": "cold_start", "name": "a"}


@pytest.fixture
def run(project: Project, alice: User) -> PhaseRun:
    """Two processes, so that a second on the clock is two device-seconds."""
    config = {"budget": BUDGET, "parallel": {"num_processes": 2}}
    return make_run(project, alice, state="running", num_processes=2, budget_device_seconds=1000.0, config=config)


def told(run: PhaseRun, node: Node, number: int, *, first: int, last: int, state: str, resume_from: str | None = None) -> RunAttempt:
    """An attempt of 40 seconds that told of 100 tokens a step, ended by `state`."""
    ended = timezone.now()
    attempt = make_attempt(run, node, number=number, state="running", started_at=ended - timedelta(seconds=40), finished_at=ended)
    rundir = rundir_of(attempt)
    write_json(rundir.config, {"run": {}, "paths": RunPaths(resume_from=resume_from).resolved()})
    for seq, step in enumerate(range(first, last + 1), 1):
        tell(rundir, seq, "scalars", **scalars(step, loss=1.0) | {"process_seconds": seq / 2})
    while Ingest(attempt, rundir, fence=1).take():
        attempt.refresh_from_db()
    RunAttempt.objects.filter(pk=attempt.pk).update(state=state)
    attempt.refresh_from_db()
    return attempt


def checkpoint(attempt: RunAttempt, step: int, *, device_seconds: float, tokens: int) -> str:
    """A complete checkpoint with the trainer's counters."""
    directory = put_checkpoint(rundir_of(attempt), step)
    (directory / "state").mkdir()
    write_json(directory / "state" / "trainer.json", {"counters": {"step": step, "tokens": tokens, "device_seconds": device_seconds}})
    return str(directory)


def test_what_a_killed_attempt_lost_is_used_all_the_same(run: PhaseRun, node: Node) -> None:
    """It was killed after step 8 and its checkpoint is of step 5: three steps are made twice and paid twice."""
    first = told(run, node, 1, first=1, last=8, state="failed")
    path = checkpoint(first, 5, device_seconds=50.0, tokens=500)
    before = run.attempts.all()
    assert (tokens_of(before), device_seconds_of(before)) == (800, pytest.approx(80.0, abs=0.1))
    left = budget_left(run, before, path)
    # What is not used, and what the trainer counts by itself since it goes on from the checkpoint.
    assert left["tokens"] == 2000 - 800 + 500
    assert left["device_seconds"] == pytest.approx(1000 - 80 + 50, abs=0.1)
    assert left["wall_seconds"] == pytest.approx(600 - 40 + 25, abs=0.1)
    assert left["dollars"] == pytest.approx(5.0 - 0.80 + 0.50, abs=0.01)
    second = told(run, node, 2, first=6, last=9, state="failed", resume_from=path)
    run.refresh_from_db()
    assert tokens_of(run.attempts.all()) == run.num_tokens == 800 + 400
    assert budget_left(run, run.attempts.all(), None)["tokens"] == 2000 - 1200
    assert second.number == 2


def test_used_up_leaves_the_least_that_ends_an_attempt_at_its_first_step(run: PhaseRun, node: Node) -> None:
    told(run, node, 1, first=1, last=20, state="succeeded")
    left = budget_left(run, run.attempts.all(), None)
    assert left["tokens"] == 1 and left["dollars"] == pytest.approx(4.2, abs=0.01)
    assert not has_budget_left(run, device_seconds=80.0)
    PhaseRun.objects.filter(pk=run.pk).update(config={**run.config, "budget": {**BUDGET, "tokens": None}})
    run.refresh_from_db()
    assert has_budget_left(run, device_seconds=80.0) and not has_budget_left(run, device_seconds=500.0)  # 5 dollars


@pytest.mark.parametrize("content", [None, "{", "[]", '{"counters": {"tokens": 1}}'])
def test_a_checkpoint_that_does_not_say_counts_as_nothing(content: str | None, run: PhaseRun, node: Node) -> None:
    directory = put_checkpoint(rundir_of(make_attempt(run, node)), 5)
    if content is not None:
        (directory / "state").mkdir()
        (directory / "state" / "trainer.json").write_text(content)
    assert used_until(directory) == (0.0, 0)


def test_a_gate_that_retries_does_not_when_the_tokens_are_used(run: PhaseRun, node: Node) -> None:
    gate = {"gate_metric": "quality_low", "gate_threshold": 0.9, "gate_action": "retry", "gate_verdict": "pending"}
    PhaseRun.objects.filter(pk=run.pk).update(**gate)
    attempt = told(run, node, 1, first=1, last=20, state="running")
    measures = {"quality": {"value": 0.6, "stderr": 0.02, "low": 0.56, "high": 0.64, "num": 64}}
    reason = "2000 of 2000 tokens are used"
    result: dict[str, Any] = {"status": "succeeded", "ended_by": "budget", "reason": reason, "steps": 20, "measures": measures}
    attempt_finish(attempt, fence=1, result=result, how="The trainer ended.")
    run.refresh_from_db()
    assert run.state == "gate_failed" and run.state_reason == (
        "Held at the gate: quality, lower bound 0.560 (mean 0.600, standard error 0.020, 95 % interval 0.560 to 0.640) on 64 held-out "
        f"problems is below the threshold 0.9. Its budget ended it: {reason}."
    )
    assert run.gate_measured is not None and run.gate_measured["num"] == 64 and run.gate_measured["compared"] == 0.56


def test_an_early_end_is_in_the_history(run: PhaseRun, node: Node) -> None:
    PhaseRun.objects.filter(pk=run.pk).update(gate_metric="quality_low", gate_threshold=0.5, gate_verdict="pending")
    attempt = told(run, node, 1, first=1, last=3, state="running")
    reason = "The gate is safely passed: … 9 of 12 steps and 85% of the budget are left."
    result = {"status": "succeeded", "ended_by": "gate", "reason": reason, "steps": 3, "quality_low": 0.6}
    attempt_finish(attempt, fence=1, result=result, how="The trainer ended.")
    run.refresh_from_db()
    assert run.state == "succeeded" and run.transitions.latest("id").reason.endswith(f"It ended early. {reason}")


def test_limits_are_shared_out_and_the_smaller_one_counts(project: Project, alice: User) -> None:
    version = make_version(project)
    own = {"budget": {"tokens": 100, "wall_seconds": 10.0}}
    phases = [{**PHASE, "budget_fraction": 0.25, "dataset_version": version, "config": own},
              {**PHASE, "name": "b", "budget_fraction": 0.5, "dataset_version": version}]  # fmt: skip
    made = services.pipeline_create(
        project=project, user=alice, name="P", phases=phases, budget_device_seconds=400.0, budget_wall_seconds=100.0,
        budget_dollars=8.0, dollars_per_device_hour=2.5, budget_tokens=1001,
    )  # fmt: skip
    first, second = services.pipeline_launch(pipeline=made, user=alice).runs.order_by("position")
    assert limits_of(first) == {"device_seconds": 100.0, "wall_seconds": 10.0, "dollars": 2.0, "tokens": 100.0}
    assert limits_of(second) == {"device_seconds": 200.0, "wall_seconds": 50.0, "dollars": 4.0, "tokens": 500.0}
    assert first.config["budget"]["dollars_per_device_hour"] == 2.5


def test_the_limit_nearest_to_its_end_is_told_first(run: PhaseRun) -> None:
    run.device_seconds, run.num_tokens = 100.0, 400
    assert [(use.unit, round(use.fraction, 3)) for use in uses_of(run)] == [
        ("dollars", 0.2), ("tokens", 0.2), ("device_seconds", 0.1), ("wall_seconds", 0.083)]
    run.summary = {"budget/wall_seconds/forecast": 1.5}
    first = uses_of(run)[0]
    assert (first.unit, first.forecast) == ("wall_seconds", 1.5)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"budget_tokens": 0}, "budget_tokens"), ({"budget_dollars": 5.0}, "dollars_per_device_hour"),
     ({"budget_wall_seconds": -1.0}, "budget_wall_seconds"), ({"dollars_per_device_hour": 0.0}, "dollars_per_device_hour")],
)  # fmt: skip
def test_a_wrong_limit_is_refused_at_its_field(
    change: dict[str, Any], field: str, project: Project, alice: User, api_alice: APIClient
) -> None:
    made = services.pipeline_create(project=project, user=alice, name="P", phases=[PHASE])
    with pytest.raises(ConfigError) as refused:
        services.pipeline_budget_set(pipeline=made, user=alice, **change)
    assert refused.value.field == field
    answer = api_alice.patch(f"/api/v1/pipelines/{made.pk}/", change, format="json")
    assert answer.status_code == 400 and list(answer.json()["errors"]) == [field]
    made.refresh_from_db()
    assert (made.budget_tokens, made.budget_dollars, made.budget_wall_seconds, made.dollars_per_device_hour) == (None,) * 4


def test_limits_are_changed_by_owners_and_editors_alone(
    project: Project, alice: User, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    made = services.pipeline_create(project=project, user=alice, name="P", phases=[PHASE], budget_device_seconds=60.0)
    url, body = f"/api/v1/pipelines/{made.pk}/", {"budget_dollars": 4.0, "dollars_per_device_hour": 2.0}
    for client, status in ((api_anonymous, 401), (api_charlie, 404), (api_bob, 403), (api_erin, 200)):
        assert client.patch(url, body, format="json").status_code == status
        assert (Pipeline.objects.get().budget_dollars == 4.0) == (status == 200)
    assert Pipeline.objects.get().budget_device_seconds == 60.0
    assert api_bob.get(url).json()["budget_dollars"] == 4.0


def test_a_run_directory_holds_what_is_left(run: PhaseRun, node: Node) -> None:
    """As the supervisor writes it: the trainer's own configuration."""
    told(run, node, 1, first=1, last=8, state="failed")
    second = make_attempt(run, node, number=2, state="claimed")
    owner = AttemptSupervisor(second.pk, fence=1)
    assert owner._claim()
    config = RunConfig.parse(owner._config(None))
    RunDir.create(rundir_of(second).path / "x", run=config, paths=owner._paths(None))
    assert config.budget.tokens == 1200 and config.budget.dollars == pytest.approx(4.2, abs=0.01)
