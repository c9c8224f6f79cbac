"""Gates and budgets on the pages: what is set, what was measured, and what people do with a run that is held."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Node, Project
from r1platform.templatetags.r1 import grouped
from tests.pages.test_a_pipelines import sent_by
from tests.training_app.rows import make_version
from tests.training_app.test_gate_actions import PHASES, make_checkpoint, move
from training_app import services
from training_app.models import PhaseRun, Pipeline, PipelinePhase, Upload
from training_app.scheduling import final_checkpoint

pytestmark = pytest.mark.django_db
JUDGED = {
    "metric": "accuracy", "bound": "low", "direction": "at_least", "threshold": 0.8, "value": 0.75, "compared": 0.7126,
    "stderr": 0.0191, "low": 0.7126, "high": 0.7852, "num": 512, "passed": False,
}  # fmt: skip


@pytest.fixture
def pipeline(project: Project, alice: User) -> Pipeline:
    version = make_version(project)
    phases = [{**phase, "dataset_version": version} for phase in PHASES]
    return services.pipeline_create(project=project, user=alice, name="P", phases=phases)


@pytest.fixture
def held(pipeline: Pipeline, alice: User, node: Node) -> PhaseRun:
    launch = services.pipeline_launch(pipeline=pipeline, user=alice)
    first, second = launch.runs.get(position=0), launch.runs.get(position=1)
    make_checkpoint(first, node, 20, is_final=True)
    move(first, "starting", "running", "succeeded")
    PhaseRun.objects.filter(pk=second.pk).update(
        starts_from=final_checkpoint(first), gate_measured=JUDGED, gate_verdict="held", num_tokens=600,
        config={**second.config, "budget": {**second.config["budget"], "tokens": 1000}},
        result={"accuracy": 0.75, "ended_by": "gate", "reason": "It was safe. 5 of 9 steps are left."},
    )  # fmt: skip
    make_checkpoint(second, node, 5, metrics={"quality": 0.625})
    return move(second, "queued", "starting", "running", "gate_failed")


def test_the_page_says_what_was_measured_and_on_what_it_rests(held: PhaseRun, client_bob: Client) -> None:
    basis = "mean 0.750 ± 0.019 (standard error), 95\u00a0% interval 0.713 to 0.785, 512 problems"
    for address in (reverse("launch-detail", args=[held.launch_id]), reverse("pipeline-detail", args=[held.launch.pipeline_id])):  # type: ignore[union-attr]
        page = client_bob.get(address).content.decode()
        assert "accuracy, lower bound ≥ 0.8" in page and "0.713" in page and basis in page
    page = client_bob.get(reverse("launch-detail", args=[held.launch_id])).content.decode()
    assert "Ended early. It was safe. 5 of 9 steps are left." in page and f"600 tokens of {grouped(1000)} tokens" in page
    run = client_bob.get(reverse("run-detail", args=[held.pk])).content.decode()
    assert "Accuracy, lower bound" in run and "gate 0.8, held" in run and "Budget used (tokens)" in run


def phase_page(client: Client, phase: PipelinePhase, **changed: str) -> Any:
    """What comes back when the phase is saved with these changes."""
    address = reverse("phase-edit", args=[phase.pipeline_id, phase.pk])
    return client.post(address, sent_by(client.get(address), **changed))


def test_a_gate_on_any_metric_is_saved(pipeline: Pipeline, client_alice: Client) -> None:
    phase = pipeline.phases.get(position=0)
    answer = phase_page(client_alice, phase, **{
        "phase-gate_metric": "length_high", "phase-gate_direction": "at_most", "phase-gate_threshold": "30",
        "phase-stop_early": "3", "held_out.every_steps": "10",
    })  # fmt: skip
    assert answer.status_code == 302
    phase.refresh_from_db()
    assert (phase.gate_metric, phase.gate_direction, phase.gate_threshold, phase.stop_early) == ("length_high", "at_most", 30.0, 3)
    assert phase.config["gate"] == {"metric": "length_high", "threshold": 30.0, "direction": "at_most", "stop_early": 3}
    page = client_alice.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()
    assert "length, upper bound ≤ 30" in page and "ends early after 3 measurements in a row" in page
    assert phase_page(client_alice, phase, **{"phase-gate_metric": "", "phase-stop_early": "0"}).status_code == 302
    phase.refresh_from_db()
    assert phase.gate_metric == "" and phase.stop_early == 0


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"gate_metric": "quality_high"}, "gate_direction"),
        ({"gate_metric": "length_low", "gate_direction": "at_most"}, "gate_direction"),
        ({"gate_metric": "format"}, "gate_metric"),
        ({"gate_metric": "luck"}, "gate_metric"),
        ({"gate_threshold": ""}, "gate_threshold"),
        ({"gate_threshold": "2"}, "gate_threshold"),
        ({"gate_metric": "length", "gate_threshold": "900"}, "gate_threshold"),
        ({"stop_early": "2"}, "stop_early"),
        ({"gate_metric": "gsm8k"}, "benchmark_data"),
        ({"gate_action": "shrug"}, "gate_action"),
    ],
)
def test_an_impossible_gate_is_said_at_its_field(
    changed: dict[str, str], field: str, pipeline: Pipeline, client_alice: Client
) -> None:
    phase = pipeline.phases.get(position=0)
    answer = phase_page(client_alice, phase, **{f"phase-{name}": value for name, value in changed.items()})
    assert answer.status_code == 422 and set(answer.context["about"].errors) == {field}
    before = phase.config
    phase.refresh_from_db()
    assert phase.gate_metric == "quality_low" and phase.config == before


def upload(project: Project, **values: Any) -> Upload:
    return Upload.objects.create(
        project=project, **{"file_name": "gsm8k.jsonl", "format": "jsonl", "size_bytes": 1, "sha256": "ab" * 32, **values})


def test_a_benchmark_is_read_from_the_projects_file_of_it_or_from_the_one_that_is_chosen(
    pipeline: Pipeline, project: Project, charlie: User, client_alice: Client
) -> None:
    phase = pipeline.phases.get(position=0)
    marked, other = upload(project, benchmark="gsm8k"), upload(project, file_name="other.jsonl")
    upload(Project.objects.get(name="Elsewhere"), file_name="theirs.jsonl")
    page = client_alice.get(reverse("phase-edit", args=[pipeline.pk, phase.pk]))
    assert "theirs.jsonl" not in page.content.decode() and "gsm8k.jsonl · gsm8k" in page.content.decode()
    for chosen, kept in (("", marked), (str(other.pk), other)):
        answer = phase_page(client_alice, phase, **{"phase-gate_metric": "gsm8k_low", "phase-benchmark_data": chosen})
        assert answer.status_code == 302
        phase.refresh_from_db()
        assert phase.benchmark_data == kept
    run = services.pipeline_launch(pipeline=pipeline, user=project.memberships.get(role="owner").user).runs.get(position=0)
    assert run.benchmark_data == other and run.config["gate"]["metric"] == "gsm8k_low"
    assert "GSM8K accuracy, lower bound ≥ 0.5" in client_alice.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()


def test_the_budget_is_set_in_hours_dollars_and_tokens(pipeline: Pipeline, client_erin: Client) -> None:
    address = reverse("pipeline-budget", args=[pipeline.pk])
    sent = {"budget_device_seconds": "1.5", "budget_dollars": "20", "dollars_per_device_hour": "2.5", "budget_wall_seconds": "0.5",
            "budget_tokens": "1000000"}  # fmt: skip
    assert client_erin.post(address, sent).status_code == 302
    pipeline.refresh_from_db()
    assert (pipeline.budget_device_seconds, pipeline.budget_wall_seconds, pipeline.budget_tokens) == (5400.0, 1800.0, 1_000_000)
    page = client_erin.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()
    assert "$20.00 at $2.50 a device-hour" in page and "tokens" in page
    form = client_erin.get(address).context["form"]
    assert (form["budget_device_seconds"].value(), form["budget_dollars"].value()) == (1.5, 20.0)
    emptied = client_erin.post(address, {**sent, "budget_dollars": "", "budget_tokens": ""})
    assert emptied.status_code == 302
    pipeline.refresh_from_db()
    assert (pipeline.budget_dollars, pipeline.budget_tokens, pipeline.budget_wall_seconds) == (None, None, 1800.0)


@pytest.mark.parametrize(
    ("sent", "field"), [({"budget_dollars": "5"}, "dollars_per_device_hour"), ({"budget_tokens": "-1"}, "budget_tokens"),
                        ({"budget_device_seconds": "x"}, "budget_device_seconds")],
)  # fmt: skip
def test_a_wrong_limit_is_said_at_its_field(sent: dict[str, str], field: str, pipeline: Pipeline, client_alice: Client) -> None:
    answer = client_alice.post(reverse("pipeline-budget", args=[pipeline.pk]), sent)
    assert answer.status_code == 422 and set(answer.context["form"].errors) == {field}
    pipeline.refresh_from_db()
    assert pipeline.budget_dollars is None and pipeline.budget_tokens is None


def test_doors_are_for_owners_and_editors(
    held: PhaseRun, client_erin: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    doors = [reverse("pipeline-budget", args=[held.launch.pipeline_id]), reverse("run-retry-changed", args=[held.pk])]  # type: ignore[union-attr]
    posts = [*doors, reverse("gate-roll-back", args=[held.launch_id, held.pk]), reverse("run-act", args=[held.pk, "roll-back"])]
    for who, status in ((client_erin, 200), (client_bob, 403), (client_charlie, 404), (client, 302)):
        assert [who.get(door).status_code for door in doors] == [status] * 2
    for who, status in ((client_bob, 403), (client_charlie, 404), (client, 302)):
        assert [who.post(door, {"reason": "x"}).status_code for door in posts] == [status] * 4
    held.refresh_from_db()
    assert held.state == "gate_failed" and PhaseRun.objects.count() == 3


@pytest.mark.parametrize("door", ["run", "launch"])
def test_a_held_run_is_rolled_back_from_its_page(door: str, held: PhaseRun, client_erin: Client) -> None:
    shown = {"run": reverse("run-detail", args=[held.pk]), "launch": reverse("launch-detail", args=[held.launch_id])}[door]
    page = client_erin.get(shown).content.decode()
    assert "Roll back…" in page and "quality 0.625" in page and reverse("run-retry-changed", args=[held.pk]) in page
    act = {"run": reverse("run-act", args=[held.pk, "roll-back"]), "launch": reverse("gate-roll-back", args=[held.launch_id, held.pk])}[door]
    own = held.checkpoints.get()
    for sent, said in (({"checkpoint": "0", "reason": "x"}, "Choose one"), ({"checkpoint": own.pk, "reason": " "}, "Say why")):
        assert said in client_erin.post(act, sent, follow=True).content.decode()
    assert "olled back to step 5" in client_erin.post(act, {"checkpoint": own.pk, "reason": "worse"}, follow=True).content.decode()
    held.refresh_from_db()
    assert held.result_checkpoint == own
    page = client_erin.get(reverse("run-detail", args=[held.pk])).content.decode()
    assert "Rolled back: its result is" in page and "Roll back…" not in page
    again = client_erin.post(act, {"checkpoint": own.pk, "reason": "worse"}, follow=True).content.decode()
    assert "is not held at its gate" in again or "Choose one" in again


def retry_page(client: Client, run: PhaseRun, **changed: str) -> Any:
    address = reverse("run-retry-changed", args=[run.pk])
    form = client.get(address).context["config"]
    sent = {}
    for name in form.fields:
        value = form[name].value()
        if value not in (None, False):
            sent[form.add_prefix(name)] = str(value) if value is not True else "on"
    return client.post(address, {**sent, **{f"config-{name}": value for name, value in changed.items()}})


def test_other_settings_make_a_run_in_its_place_and_each_names_the_other(held: PhaseRun, client_erin: Client) -> None:
    unchanged = retry_page(client_erin, held)
    assert unchanged.status_code == 422 and "No setting is changed" in unchanged.content.decode()
    wrong = retry_page(client_erin, held, **{"phase_config.steps": "0"})
    assert wrong.status_code == 422 and set(wrong.context["config"].errors) == {"phase_config.steps"}
    assert not {name for name in wrong.context["config"].fields if name.split(".")[0] in {"gate", "benchmark", "model", "tokenizer"}}
    answer = retry_page(client_erin, held, seed="77")
    made = PhaseRun.objects.get(retry_of=held)
    assert answer.status_code == 302 and answer["Location"] == reverse("run-detail", args=[made.pk])
    assert made.config["seed"] == 77 and made.config["model"] == held.config["model"]
    for tab in ("charts", "history"):
        old = client_erin.get(reverse("run-detail", args=[held.pk, tab])).content.decode()
        new = client_erin.get(reverse("run-detail", args=[made.pk, tab])).content.decode()
        assert f"run {made.pk}</a>" in old and "by erin" in old and f"run {held.pk}</a>" in new
    assert '<td class="mono">seed</td><td class="mono">0</td><td class="mono">77</td>' in new
    assert "Override gate" not in old and "Run again" not in old
    late = retry_page(client_erin, held, seed="78")
    assert late.status_code == 302 and PhaseRun.objects.filter(launch=held.launch).count() == 4
    page = client_erin.get(reverse("launch-detail", args=[held.launch_id])).content.decode()
    assert f"in the place of run {held.pk}" in page and "Held at the gate" not in page


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_what_failed_offers_other_settings(state: str, held: PhaseRun, client_alice: Client) -> None:
    PhaseRun.objects.filter(pk=held.pk).update(state=state)
    page = client_alice.get(reverse("run-detail", args=[held.pk])).content.decode()
    assert "Other settings…" in page and "Roll back…" not in page
