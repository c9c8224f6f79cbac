"""What a plan will take before it is launched: from measured steps, within its budgets, with the formula and the fix."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Device, Node, Project
from tests.training_app.rows import make_version
from training_app import services
from training_app.estimates import estimates
from training_app.models import PhaseRun, Pipeline
from training_app.states import RunState
from training_app.views.fit import Check, fit_check

pytestmark = pytest.mark.django_db


@pytest.fixture
def pipeline(project: Project, alice: User, node: Node) -> Pipeline:
    version = make_version(project, num_held_out=2000)
    return services.pipeline_from_template(project=project, user=alice, template="article", name="Tiny", dataset_version=version)


def measured(pipeline: Pipeline, user: User, **seconds: float) -> None:
    """A launch whose phases took so many device-seconds for all their steps."""
    launch = services.pipeline_launch(pipeline=pipeline, user=user)
    for run in launch.runs.all():
        steps = run.config["phase_config"]["steps"]
        values = {"state": RunState.SUCCEEDED, "progress": {"step": steps}, "device_seconds": seconds[run.phase]}
        PhaseRun.objects.filter(pk=run.pk).update(**values)
    type(launch).objects.filter(pk=launch.pk).update(state="succeeded")


def checks(pipeline: Pipeline) -> dict[str, Check]:
    phases = list(pipeline.phases.select_related("dataset_version__dataset", "starts_from", "rollouts_from"))
    return {check.label: check for check in fit_check(pipeline, phases)}


def test_what_was_never_run_is_not_guessed(pipeline: Pipeline) -> None:
    time = checks(pipeline)["Device time"]
    assert time.value == 2400 and time.words.startswith("at most: cold-start, reinforcement")
    Pipeline.objects.update(budget_device_seconds=None)
    pipeline.refresh_from_db()
    time = checks(pipeline)["Device time"]
    assert time.value is None and "A short launch measures it" in time.words and "On the clock" not in checks(pipeline)
    assert checks(pipeline)["Cost"].value is None


def test_measured_steps_give_time_and_dollars(pipeline: Pipeline, alice: User) -> None:
    """Twice the steps take twice as long; the price of an hour makes it money; the formula says both."""
    measured(pipeline, alice, cold_start=100, reinforcement=900, rejection_sampling=200)
    Pipeline.objects.update(dollars_per_device_hour=2.0)
    phase = pipeline.phases.get(name="cold-start")
    steps = phase.config["phase_config"]["steps"]
    phase.config["phase_config"]["steps"] = 2 * steps
    phase.save(update_fields=["config"])
    pipeline.refresh_from_db()
    found = checks(pipeline)
    assert found["Device time"].words == "measured here, in runs of this project"
    assert found["Device time"].value == pytest.approx(1300) and f"{2 * steps} steps ×" in found["Device time"].formula
    assert found["Cost"].value == pytest.approx(1300 / 3600 * 2, abs=0.01) and "$2.00 a device-hour" in found["Cost"].formula
    assert found["On the clock"].tone == found["Cost"].tone == "succeeded"


def test_another_work_is_not_measured_by_it(pipeline: Pipeline, alice: User) -> None:
    measured(pipeline, alice, cold_start=100, reinforcement=900, rejection_sampling=200)
    phase = pipeline.phases.get(name="reinforcement")
    phase.config["phase_config"]["group_size"] *= 2
    phase.save(update_fields=["config"])
    one = next(one for one in estimates(pipeline, pipeline.phases.all()) if one.phase == "reinforcement")
    assert one.device_seconds is None and one.expected == pytest.approx(2400 * 0.7)


def test_what_does_not_fit_comes_with_its_fix(pipeline: Pipeline, alice: User) -> None:
    measured(pipeline, alice, cold_start=100, reinforcement=900, rejection_sampling=200)
    Pipeline.objects.update(budget_device_seconds=600, budget_wall_seconds=300, budget_dollars=0.1, dollars_per_device_hour=2.0)
    pipeline.refresh_from_db()
    found = checks(pipeline)
    assert found["Device time"].tone == "waiting" and "ends at about step" in found["Device time"].words
    assert found["Cost"].tone == "failed" and "All steps would cost $0.67 and the budget is $0.10" in found["Cost"].words
    Pipeline.objects.update(budget_dollars=None, budget_wall_seconds=60)
    pipeline.refresh_from_db()
    assert checks(pipeline)["On the clock"].tone == "failed"


def test_memory_that_does_not_fit_names_a_layout_or_says_that_there_is_none(pipeline: Pipeline, client_alice: Client) -> None:
    needed = checks(pipeline)["Memory of a device"]
    assert needed.formula.endswith("bytes") and " + " in needed.formula
    assert checks(pipeline)["Largest phase, reinforcement"].value > needed.value
    Device.objects.update(memory_bytes=1000)
    assert "No layout on the 2 devices that are up fits" in checks(pipeline)["Memory of a device"].words
    page = client_alice.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()
    assert "<summary>Formula</summary>" in page
