"""Pipeline and launch pages: what does not fit is said before and after a launch, and ended things speak as ended."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from model_core.config import RunConfig
from model_core.planner import needed_bytes
from r1platform.models import Device, Node, Project
from tests.pages.b_rows import make_event, make_run
from tests.training_app.rows import make_version
from training_app import services
from training_app.models import DatasetVersion, Launch, PhaseRun, Pipeline, Upload
from training_app.states import RunState
from training_app.views.fit import fit_check
from training_app.views.run_words import gate_said

pytestmark = pytest.mark.django_db


@pytest.fixture
def pipeline(project: Project, alice: User) -> Pipeline:
    version = make_version(project, num_held_out=2000)
    return services.pipeline_from_template(
        project=project, user=alice, template="article", name="Tiny R1", dataset_version=version
    )


def tones(pipeline: Pipeline) -> dict[str, str]:
    phases = list(pipeline.phases.select_related("dataset_version__dataset"))
    return {check.label: check.tone for check in fit_check(pipeline, phases)}


def sent_by(page: Any, **changed: str) -> dict[str, str]:
    """What a browser posts of the phase page."""
    out = {}
    for form in (page.context["about"], page.context["config"]):
        for name in form.fields:
            value = form[name].value()
            if value not in (None, False):
                out[form.add_prefix(name)] = str(getattr(value, "pk", value)) if value is not True else "on"
    return {**out, **changed}


def test_memory_is_the_planners_with_its_parts(pipeline: Pipeline, node: Node) -> None:
    phase = pipeline.phases.get(position=0)
    needed = needed_bytes(RunConfig.parse({**phase.config, "phase": phase.phase}))
    checks = fit_check(pipeline, list(pipeline.phases.select_related("dataset_version__dataset")))
    memory = next(check for check in checks if check.label == "Memory of a device")
    assert memory.value == needed.peak.total
    assert all(name in memory.words for name, number in needed.peak.parts.items() if number)


def test_a_layout_that_does_not_divide_is_said(pipeline: Pipeline, node: Node) -> None:
    phase = pipeline.phases.get(position=0)
    phase.config["parallel"] |= {"expert": 3}
    pipeline.phases.filter(pk=phase.pk).update(config=phase.config, num_processes=3)
    assert tones(pipeline)["Memory of a device"] == "failed"


def test_a_model_that_fits_no_device_is_red(pipeline: Pipeline, node: Node) -> None:
    assert tones(pipeline)["Memory of a device"] == "succeeded"
    Device.objects.filter(index=1).update(memory_bytes=1000)
    assert tones(pipeline)["Memory of a device"] == "failed"


def test_every_new_model_is_checked(pipeline: Pipeline, node: Node) -> None:
    pipeline.phases.filter(position=1).update(starts_from=None)
    names = [label for label in tones(pipeline) if label.startswith("Memory")]
    assert names == ["Memory of a device of cold-start", "Memory of a device of reinforcement"]


def test_data_on_its_way_is_no_empty_data(pipeline: Pipeline, client_alice: Client) -> None:
    DatasetVersion.objects.update(state="preparing", num_held_out=0, progress=0.4)
    page = client_alice.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()
    assert 'data-part="checks"' in page and "is being prepared, 40\u202f%" in page
    assert tones(pipeline)["Data"] == "waiting"


def test_a_launch_that_does_not_fit_asks_first_and_says_what_it_waits_for(
    pipeline: Pipeline, client_alice: Client, node: Node
) -> None:
    address = reverse("pipeline-detail", args=[pipeline.pk])
    assert 'data-dialog="launch-misfit"' not in client_alice.get(address).content.decode()
    pipeline.phases.filter(position=0).update(num_processes=64)
    page = client_alice.get(address)
    assert 'data-dialog="launch-misfit"' in page.content.decode()
    assert [check.label for check in page.context["misfits"]] == ["Devices"]
    client_alice.post(reverse("pipeline-launch", args=[pipeline.pk]))
    PhaseRun.objects.filter(position=0).update(waiting_reason="It asks for 64 devices.")
    launch = Launch.objects.get()
    for shown in (address, reverse("launch-detail", args=[launch.pk])):
        page = client_alice.get(shown)
        assert page.context["badge"]["state"] == "waiting"
        assert "It asks for 64 devices." in page.content.decode()
    PhaseRun.objects.filter(position=0).update(state="running")
    assert client_alice.get(address).context["badge"]["label"] == "Running"


def test_processes_are_asked_once_and_kept(pipeline: Pipeline, client_alice: Client) -> None:
    phase = pipeline.phases.get(position=0)
    address = reverse("phase-edit", args=[pipeline.pk, phase.pk])
    page = client_alice.get(address)
    assert "parallel.num_processes" not in page.context["config"].fields
    sent = sent_by(page, **{"phase-num_processes": "4", "parallel.expert": "2"})
    assert client_alice.post(address, sent).status_code == 302
    phase.refresh_from_db()
    assert phase.num_processes == 4 and phase.config["parallel"]["num_processes"] == 4


@pytest.mark.parametrize(
    ("name", "value"), [("gate_threshold", "1.5"), ("gate_threshold", "-0.1"), ("budget_fraction", "0.4")]
)
def test_an_impossible_gate_or_share_is_said_at_its_field(
    name: str, value: str, pipeline: Pipeline, client_alice: Client
) -> None:
    phase = pipeline.phases.get(position=0)
    address = reverse("phase-edit", args=[pipeline.pk, phase.pk])
    answer = client_alice.post(address, sent_by(client_alice.get(address), **{f"phase-{name}": value}))
    assert answer.status_code == 422 and set(answer.context["about"].errors) == {name}


def test_a_single_run_has_the_newest_version_chosen(project: Project, client_alice: Client) -> None:
    make_version(project)
    newest = make_version(project)
    form = client_alice.get(reverse("run-new"), {"phase": "cold_start"}).context["form"]
    assert form["dataset_version"].value() == newest.pk and form.fields["dataset_version"].required


@pytest.mark.parametrize(("desired", "word"), [("pause", "Pausing"), ("stop", "Stopping")])
def test_a_run_that_was_paused_is_pausing(desired: str, word: str, project: Project, client_alice: Client) -> None:
    run = make_run(project, state="stopping", desired=desired)
    page = client_alice.get(reverse("run-header", args=[run.pk])).content.decode()
    assert f"<strong>{word}.</strong>" in page
    assert page.count("It writes a checkpoint, then frees its device.") == 1


@pytest.mark.parametrize(("state", "label"), [("stopping", "Pausing"), ("paused", "Paused"), ("succeeded", "Paused")])
def test_a_launch_is_pausing_while_its_run_is(state: str, label: str, pipeline: Pipeline, client_alice: Client) -> None:
    launch = Launch.objects.create(pipeline=pipeline, number=1, state="paused")
    make_run(pipeline.project, launch=launch, state=state, desired="pause")
    page = client_alice.get(reverse("launch-detail", args=[launch.pk]))
    assert page.context["badge"]["label"] == label and label in page.content.decode()


@pytest.mark.parametrize(("forecast", "ends_early"), [(1.25, True), (0.8, False)])
def test_a_run_says_when_its_budget_will_not_last(
    forecast: float, ends_early: bool, project: Project, client_alice: Client
) -> None:
    run = make_run(
        project, state="running", device_seconds=20.0, budget_device_seconds=80.0, summary={"budget/forecast_fraction": forecast}
    )
    page = client_alice.get(reverse("run-detail", args=[run.pk])).content.decode()
    assert ("the budget ends it before its last step" in page) == ends_early


@pytest.mark.parametrize("state", RunState.values)
def test_only_what_moves_is_live(state: str, project: Project, client_alice: Client) -> None:
    run = make_run(project, state=state, num_tokens=9, gate_threshold=0.5, gate_verdict="pending")
    page = client_alice.get(reverse("run-detail", args=[run.pk])).content.decode()
    moves = state in {"waiting", "queued", "starting", "running", "stopping"}
    assert ("data-live-badge" in page) == moves and ("so far" in page) == moves
    assert gate_said(run) == ("not decided yet" if moves or state == "paused" else "not decided")


def test_a_finished_cold_start_samples_nothing(project: Project, client_alice: Client) -> None:
    run = make_run(project, phase="cold_start", state="succeeded")
    page = client_alice.get(reverse("run-detail", args=[run.pk, "rollouts"])).content.decode()
    assert "A cold start samples nothing." in page


def test_a_run_that_sampled_but_made_no_step_says_so(project: Project, client_alice: Client, node: Node) -> None:
    run = make_run(project, phase="rejection_sampling", state="failed", state_reason="It ran out of memory.")
    run.series.all().delete()
    address = reverse("run-detail", args=[run.pk])
    assert "This run ended before its first step." in client_alice.get(address).content.decode()
    make_event(run, node, 1, "rollouts", step=0, file="samples/step_0.jsonl", num_groups=1, num_rollouts=2)
    page = client_alice.get(address).content.decode()
    assert "ended before its first step" not in page and "which are under Rollouts" in page


def test_a_run_that_was_stopped_in_the_queue_never_started(project: Project, client_alice: Client) -> None:
    make_run(project, state="stopped", started_at=None)
    assert "never</span>" in client_alice.get(reverse("run-list")).content.decode()


def test_a_failed_version_shows_its_settings(project: Project, client_alice: Client) -> None:
    version = make_version(project, state="failed", state_reason="Row 7 has no “answer”.")
    version.config = {"source": "generated", "seed": 4711}
    version.save(update_fields=["config"])
    page = client_alice.get(reverse("version-detail", args=[version.dataset_id, version.number])).content.decode()
    assert "<h2>Settings</h2>" in page and "4711" in page


def test_a_field_that_rows_lack_is_said_before_preparing(project: Project, client_alice: Client) -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": " "}, {"prompt": "c"}]
    upload = Upload.objects.create(
        project=project, file_name="x.jsonl", format="jsonl", size_bytes=1, sha256="ab" * 32, columns=["prompt", "answer"],
        preview=rows,
    )  # fmt: skip
    page = client_alice.get(reverse("dataset-new"), {"upload": upload.pk})
    assert page.context["gaps"] == [{"name": "answer", "missing": 2, "of": 3}]
    assert "is missing in 2 of the 3 rows shown" in page.content.decode()
