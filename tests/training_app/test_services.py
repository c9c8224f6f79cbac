"""What people ask of pipelines and runs: refused at the field with nothing half made, or done once and written down."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from model_core.errors import CheckpointError, ConfigError, DataError, ModelCoreError, UnknownName
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import AuditEntry, Node, Project
from r1platform.services import project_create
from tests.training_app.rows import make_attempt, make_run, make_version
from training_app import services
from training_app.models import Checkpoint, Launch, PhaseRun, Pipeline, PipelinePhase, RunTransition
from training_app.scheduling import schedule_once
from training_app.transitions import run_transition

pytestmark = pytest.mark.django_db


@pytest.fixture
def pipeline(project: Project, alice: User) -> Pipeline:
    version = make_version(project)
    return services.pipeline_from_template(
        project=project, user=alice, template="article", name="Tiny R1", dataset_version=version, seed=3
    )


def launch(pipeline: Pipeline, user: User) -> Launch:
    return services.pipeline_launch(pipeline=pipeline, user=user)


def test_the_article_in_a_pipeline(pipeline: Pipeline) -> None:
    phases = list(pipeline.phases.order_by("position"))
    assert [phase.phase for phase in phases] == ["cold_start", "reinforcement", "rejection_sampling"]
    assert [phase.budget_fraction for phase in phases] == [0.15, 0.70, 0.15]
    assert [phase.gate_threshold for phase in phases] == [0.75, 0.85, 0.90]
    assert {phase.gate_metric for phase in phases} == {"quality_low"}
    assert all(phase.config["seed"] == 3 for phase in phases)
    assert phases[1].starts_from == phases[0] and phases[2].rollouts_from == phases[1]


PHASE: dict[str, Any] = {"name": "one", "phase": "cold_start"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "  "}, "name"),
        ({"phases": []}, "phases"),
        ({"budget_device_seconds": -1.0}, "budget_device_seconds"),
        ({"phases": [{**PHASE, "colour": "red"}]}, "phases.0.colour"),
        ({"phases": [PHASE, PHASE]}, "phases.1.name"),
        ({"phases": [{**PHASE, "starts_from": "two"}]}, "phases.0.starts_from"),
        ({"phases": [{"phase": "reinforcement"}]}, "phases.0.starts_from"),
        ({"phases": [{**PHASE, "config": {"sead": 1}}]}, "phases.0.config.sead"),
        ({"phases": [{**PHASE, "config": {"phase_config": {"steps": 0}}}]}, "phases.0.config.phase_config.steps"),
        ({"phases": [{**PHASE, "budget_fraction": 0}]}, "phases.0.budget_fraction"),
        ({"phases": [{**PHASE, "gate_metric": "luck", "gate_threshold": 1}]}, "phases.0.gate_metric"),
        ({"phases": [{**PHASE, "gate_metric": "quality_low"}]}, "phases.0.gate_threshold"),
        ({"phases": [{**PHASE, "gate_action": "shrug"}]}, "phases.0.gate_action"),
        ({"phases": [{**PHASE, "gate_metric": "accuracy", "gate_threshold": 1.5}]}, "phases.0.gate_threshold"),
        ({"phases": [{**PHASE, "gate_metric": "quality", "gate_threshold": -0.1}]}, "phases.0.gate_threshold"),
        (
            {"phases": [{**PHASE, "budget_fraction": 0.7}, {**PHASE, "name": "two", "budget_fraction": 0.4}]},
            "phases.1.budget_fraction",
        ),
    ],
)
def test_a_wrong_plan_is_refused_at_its_field(change: dict[str, Any], field: str, project: Project, alice: User) -> None:
    with pytest.raises(ConfigError) as refused:
        services.pipeline_create(**{"project": project, "user": alice, "name": "P", "phases": [PHASE], **change})
    assert refused.value.field == field
    assert not Pipeline.objects.exists() and not PipelinePhase.objects.exists()


def test_phases_that_name_no_share_divide_what_the_others_leave(project: Project, alice: User) -> None:
    phases = [{**PHASE, "budget_fraction": 0.5}, {**PHASE, "name": "two"}, {**PHASE, "name": "three"}]
    made = services.pipeline_create(project=project, user=alice, name="P", phases=phases)
    assert [phase.budget_fraction for phase in made.phases.order_by("position")] == [0.5, 0.25, 0.25]


def test_a_changed_share_may_not_give_away_more_than_there_is(pipeline: Pipeline, alice: User) -> None:
    phase = pipeline.phases.get(position=0)
    values = {
        "config": phase.config, "dataset_version": phase.dataset_version, "num_processes": 1, "gate_metric": "",
        "gate_threshold": None, "gate_action": "hold",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"1\.05 together") as refused:
        services.pipeline_phase_update(phase=phase, user=alice, budget_fraction=0.2, **values)
    assert refused.value.field == "budget_fraction"
    assert services.pipeline_phase_update(phase=phase, user=alice, budget_fraction=0.1, **values).budget_fraction == 0.1


def test_a_pipeline_is_launched_while_its_data_is_on_its_way(project: Project, alice: User, node: Node) -> None:
    version = make_version(project, state="preparing")
    made = services.pipeline_from_template(
        project=project, user=alice, template="article", name="Early", dataset_version=version
    )
    first = launch(made, alice).runs.get(position=0)
    assert schedule_once() == 0
    first.refresh_from_db()
    assert first.state == "queued" and first.waiting_reason == f"Waits for {version} to be prepared."
    type(version).objects.filter(pk=version.pk).update(state="ready")
    assert schedule_once() == 1
    first.refresh_from_db()
    assert first.state == "starting"


def test_a_name_is_used_once(pipeline: Pipeline, project: Project, alice: User) -> None:
    with pytest.raises(ConfigError, match="Tiny R1") as refused:
        services.pipeline_create(project=project, user=alice, name="Tiny R1", phases=[PHASE])
    assert refused.value.field == "name"


def test_an_unknown_template_names_those_that_exist(project: Project, alice: User) -> None:
    with pytest.raises(UnknownName, match="article"):
        services.pipeline_from_template(
            project=project, user=alice, template="magic", name="x", dataset_version=make_version(project)
        )


def test_data_of_another_project_is_no_data(project: Project, alice: User) -> None:
    elsewhere = make_version(project_create(user=alice, name="Elsewhere"))
    with pytest.raises(DataError) as refused:
        services.pipeline_from_template(project=project, user=alice, template="article", name="x", dataset_version=elsewhere)
    assert refused.value.field == "dataset_version" and not Pipeline.objects.exists()


def test_a_launch_has_a_run_for_each_phase(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    runs = list(made.runs.order_by("position"))
    assert [run.state for run in runs] == ["queued", "waiting", "waiting"]
    assert runs[1].waiting_reason == "Waits for cold-start."
    budget = pipeline.budget_device_seconds
    assert budget is not None
    assert [run.budget_device_seconds for run in runs] == [pytest.approx(budget * f) for f in (0.15, 0.70, 0.15)]
    assert all(run.config["budget"]["device_seconds"] == run.budget_device_seconds for run in runs)
    assert AuditEntry.objects.filter(action="pipeline.launch", user=alice).exists()


def test_two_launches_at_once_are_one(pipeline: Pipeline, alice: User) -> None:
    first = launch(pipeline, alice)
    with pytest.raises(IllegalTransition, match="stop it before"):
        launch(pipeline, alice)
    assert Launch.objects.get() == first and PhaseRun.objects.count() == 3
    services.launch_stop(launch=first, user=alice)
    assert launch(pipeline, alice).number == 2


def test_a_launch_keeps_its_settings_when_the_plan_changes(pipeline: Pipeline, alice: User) -> None:
    phase = pipeline.phases.get(position=0)
    run = launch(pipeline, alice).runs.get(position=0)
    config = {**phase.config, "phase_config": {**phase.config["phase_config"], "steps": 7, "warmup_steps": 2}}
    services.pipeline_phase_update(
        phase=phase, user=alice, config=config, dataset_version=None, budget_fraction=0.15, num_processes=2, gate_metric="",
        gate_threshold=None, gate_action="hold",
    )  # fmt: skip
    phase.refresh_from_db()
    assert phase.config["phase_config"]["steps"] == 7 and phase.config["parallel"]["num_processes"] == 2
    before = run.config
    run.refresh_from_db()
    assert run.config == before


def test_a_phase_without_data_cannot_be_launched(pipeline: Pipeline, alice: User) -> None:
    pipeline.phases.filter(position=0).update(dataset_version=None)
    with pytest.raises(DataError, match="cold-start has no dataset version"):
        launch(pipeline, alice)
    assert not Launch.objects.exists()


def test_pausing_and_resuming_a_launch(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    services.launch_pause(launch=made, user=alice)
    made.refresh_from_db()
    assert made.state == "paused"
    assert list(made.runs.order_by("position").values_list("state", flat=True)) == ["paused", "waiting", "waiting"]
    services.launch_resume(launch=made, user=alice)
    made.refresh_from_db()
    assert made.state == "running"
    assert made.runs.get(position=0).state == "queued"
    assert made.runs.get(position=0).desired == "run"


def test_a_launch_is_pausing_for_everybody_until_its_phase_has_ended(
    pipeline: Pipeline, alice: User, node: Node, api_alice: APIClient, client_alice: Client
) -> None:
    made = launch(pipeline, alice)
    run = made.runs.get(position=0)
    PhaseRun.objects.filter(pk=run.pk).update(state="running")
    make_attempt(run, node)
    services.launch_pause(launch=made, user=alice)
    for state, label in (("pausing", "Pausing"), ("paused", "Paused")):
        told = api_alice.get(f"/api/v1/launches/{made.pk}/").json()
        page = client_alice.get(f"/launches/{made.pk}/").content.decode()
        assert (told["state"], told["runs"][0]["state"]) == (state, "stopping" if state == "pausing" else "paused")
        assert page.count(f">{label}</span>") >= 2, "in the title and in the history"
        assert (">Paused</span>" in page) == (state == "paused")
        assert f">{label}</span>" in client_alice.get(f"/pipelines/{pipeline.pk}/").content.decode()
        PhaseRun.objects.filter(pk=run.pk).update(state="paused")


def test_stopping_a_launch_ends_what_waits_and_resuming_brings_it_back(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    services.launch_stop(launch=made, user=alice)
    assert set(made.runs.values_list("state", flat=True)) == {"stopped"}
    services.launch_resume(launch=made, user=alice)
    assert list(made.runs.order_by("position").values_list("state", flat=True)) == ["queued", "waiting", "waiting"]


def test_a_live_run_is_asked_and_not_ended(project: Project, alice: User, node: Node) -> None:
    run = make_run(project, alice, state="running")
    make_attempt(run, node)
    services.run_pause(run=run, user=alice)
    run.refresh_from_db()
    assert run.state == "stopping" and run.desired == "pause"
    services.run_stop(run=run, user=alice)
    run.refresh_from_db()
    assert run.state == "stopping" and run.desired == "stop"
    with pytest.raises(IllegalTransition):
        services.run_pause(run=run, user=alice)


@pytest.mark.parametrize("verb", ["run_stop", "run_pause", "run_resume", "run_retry"])
def test_what_has_succeeded_cannot_be_steered(verb: str, project: Project, alice: User) -> None:
    run = make_run(project, alice, state="succeeded")
    with pytest.raises(IllegalTransition):
        getattr(services, verb)(run=run, user=alice)
    run.refresh_from_db()
    assert run.state == "succeeded" and run.desired == "run" and not RunTransition.objects.exists()


def test_an_overridden_gate_lets_the_launch_go_on(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    run = made.runs.get(position=0)
    for state in ("starting", "running", "gate_failed"):
        run_transition(run=run, to=state, reason="below")
    made.refresh_from_db()
    assert made.state == "held"
    with pytest.raises(ConfigError):
        services.gate_override(run=run, user=alice, reason=" ")
    services.gate_override(run=run, user=alice, reason="good enough")
    made.refresh_from_db()
    run.refresh_from_db()
    assert (made.state, run.state, run.gate_verdict) == ("running", "succeeded", "overridden")
    with pytest.raises(IllegalTransition):
        services.gate_override(run=run, user=alice, reason="again")


def test_retrying_revives_the_launch(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    run = made.runs.get(position=0)
    for state in ("starting", "running", "failed"):
        run_transition(run=run, to=state, reason="it broke")
    made.refresh_from_db()
    assert made.state == "failed" and "it broke" in made.state_reason
    services.run_retry(run=run, user=alice)
    made.refresh_from_db()
    assert made.state == "running" and made.finished_at is None


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"name": ""}, ConfigError, "name"),
        ({"phase": "magic"}, UnknownName, "phase"),
        ({"config": {"modle": {}}}, ConfigError, "modle"),
        ({"dataset_version": None}, DataError, "dataset_version"),
        ({"phase": "reinforcement"}, CheckpointError, "starts_from"),
        ({"budget_device_seconds": 0.0}, ConfigError, "budget_device_seconds"),
    ],
)
def test_a_wrong_run_is_refused(values: dict[str, Any], error: type, field: str, project: Project, alice: User) -> None:
    given = {"name": "run", "phase": "cold_start", "config": {}, "dataset_version": make_version(project)}
    with pytest.raises(error) as refused:
        services.run_create(project=project, user=alice, **{**given, **values})
    assert isinstance(refused.value, ModelCoreError) and refused.value.field == field
    assert not PhaseRun.objects.exists()


def test_a_failed_version_or_a_removed_checkpoint_is_no_input(project: Project, alice: User, node: Node) -> None:
    with pytest.raises(DataError, match="failed"):
        services.run_create(
            project=project, user=alice, name="r", phase="cold_start", config={},
            dataset_version=make_version(project, state="failed", state_reason="It broke."),
        )  # fmt: skip
    before = make_run(project, alice, state="succeeded")
    removed = Checkpoint.objects.create(
        run=before, attempt=make_attempt(before, node, state="succeeded"), step=3, removed_at="2026-01-01T00:00Z"
    )
    with pytest.raises(CheckpointError, match="removed"):
        services.run_create(
            project=project, user=alice, name="r", phase="cold_start", config={}, dataset_version=before.dataset_version,
            starts_from=removed,
        )  # fmt: skip


def test_a_clone_is_a_run_of_its_own(project: Project, alice: User) -> None:
    run = make_run(project, alice, state="succeeded", config={"seed": 5})
    clone = services.run_clone(run=run, user=alice)
    assert clone.pk != run.pk and clone.config == run.config and clone.state == "queued"


def test_tags_are_few_and_short(project: Project, alice: User) -> None:
    run = make_run(project, alice)
    services.run_tags_set(run=run, user=alice, tags=["a", " a ", "", "b"])
    run.refresh_from_db()
    assert run.tags == ["a", "b"]
    for tags in (["x" * 41], [str(number) for number in range(21)]):
        with pytest.raises(ConfigError):
            services.run_tags_set(run=run, user=alice, tags=tags)
    run.refresh_from_db()
    assert run.tags == ["a", "b"]


def test_a_launch_is_not_resumed_beside_another_live_one(pipeline: Pipeline, alice: User) -> None:
    first = launch(pipeline, alice)
    services.launch_stop(launch=first, user=alice)
    second = launch(pipeline, alice)
    with pytest.raises(IllegalTransition, match="Launch 2 of this pipeline is running"):
        services.launch_resume(launch=first, user=alice)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.state, second.state) == ("stopped", "running")


def test_what_ended_while_a_launch_was_paused_counts_when_it_is_resumed(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    services.launch_pause(launch=made, user=alice)
    made.runs.update(state="succeeded")
    services.launch_resume(launch=made, user=alice)
    made.refresh_from_db()
    assert made.state == "succeeded"


def test_a_gate_that_held_while_a_launch_was_paused_holds_it_when_it_is_resumed(pipeline: Pipeline, alice: User) -> None:
    made = launch(pipeline, alice)
    services.launch_pause(launch=made, user=alice)
    made.runs.filter(position=0).update(state="gate_failed")
    services.launch_resume(launch=made, user=alice)
    made.refresh_from_db()
    assert made.state == "held" and made.runs.get(position=0).state == "gate_failed"


def test_a_long_name_can_be_cloned_and_a_longer_one_is_refused(project: Project, alice: User) -> None:
    run = make_run(project, alice, state="succeeded")
    PhaseRun.objects.filter(pk=run.pk).update(name="x" * 120)
    run.refresh_from_db()
    clone = services.run_clone(run=run, user=alice)
    assert len(clone.name) == 120 and clone.name.endswith("x again")
    with pytest.raises(ConfigError, match="1 to 120 characters; this one has 121"):
        services.run_create(project=project, user=alice, name="x" * 121, phase="cold_start", config={})
