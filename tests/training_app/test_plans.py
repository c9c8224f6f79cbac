"""Plans are changed: phases added, moved, removed, copied, run alone; a reward model goes from one phase to a later one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.errors import CheckpointError, ConfigError, ModelCoreError
from model_core.rundir import RunDir
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_version
from training_app import selectors, services
from training_app.models import Checkpoint, PhaseRun, Pipeline
from training_app.scheduling import schedule_once
from training_app.services.pipelines import AlreadyLive
from training_app.states import RunState

pytestmark = pytest.mark.django_db
API = "/api/v1"
PREFERRED = {
    "reward": {
        "weights": {"solution_accuracy": 1.0, "preference": 0.5}, "settings": {"preference": {"checkpoint": "phase:judge"}},
    }
}  # fmt: skip


@pytest.fixture
def pipeline(project: Project, alice: User) -> Pipeline:
    version = make_version(project)
    return services.pipeline_from_template(project=project, user=alice, template="article", name="Tiny", dataset_version=version)


def names(pipeline: Pipeline) -> list[str]:
    return list(pipeline.phases.order_by("position").values_list("name", flat=True))


def succeed(run: PhaseRun, node: Node, number: int = 1) -> Checkpoint:
    """The run ends well with a checkpoint, as its supervisor would write it down."""
    attempt = make_attempt(run, node, number=number, state="succeeded")
    made = Checkpoint.objects.create(run=run, attempt=attempt, step=7, is_final=True)
    PhaseRun.objects.filter(pk=run.pk).update(state=RunState.SUCCEEDED)
    return made


def test_phases_are_added_moved_and_removed(pipeline: Pipeline, alice: User) -> None:
    with pytest.raises(ConfigError, match="whole budget") as refused:
        services.phase_add(pipeline=pipeline, user=alice, phase="distillation", rollouts_from="rejection-sampling")
    assert refused.value.field == "budget_fraction"
    pipeline.phases.filter(name="reinforcement").update(budget_fraction=0.5)
    with pytest.raises(ConfigError, match="reinforcement keeps none") as refused:
        services.phase_add(pipeline=pipeline, user=alice, phase="distillation", rollouts_from="reinforcement")
    assert refused.value.field == "rollouts_from"
    again = {"phase": "rejection_sampling", "name": "kept", "starts_from": "cold-start", "rollouts_from": "reinforcement"}
    added = services.phase_add(pipeline=pipeline, user=alice, position=2, **again)
    assert names(pipeline) == ["cold-start", "reinforcement", "kept", "rejection-sampling"]
    assert added.budget_fraction == pytest.approx(0.2) and added.rollouts_from is not None
    with pytest.raises(ConfigError, match="kept builds on cold-start") as refused:
        services.phase_move(phase=added, user=alice, position=0)
    assert refused.value.field == "position"
    services.phase_move(phase=added, user=alice, position=3)
    assert names(pipeline) == ["cold-start", "reinforcement", "rejection-sampling", "kept"]
    with pytest.raises(ConfigError, match="rejection-sampling, kept builds on reinforcement"):
        services.phase_remove(phase=pipeline.phases.get(name="reinforcement"), user=alice)
    services.phase_remove(phase=pipeline.phases.get(name="rejection-sampling"), user=alice)
    assert names(pipeline) == ["cold-start", "reinforcement", "kept"]
    assert list(pipeline.phases.order_by("position").values_list("position", flat=True)) == [0, 1, 2]


def test_what_a_phase_builds_on_is_changed(pipeline: Pipeline, alice: User) -> None:
    phase = pipeline.phases.get(name="rejection-sampling")
    services.phase_source_set(phase=phase, user=alice, starts_from=pipeline.phases.get(name="reinforcement"))
    phase.refresh_from_db()
    assert phase.starts_from is not None and phase.starts_from.name == "reinforcement"
    with pytest.raises(ConfigError, match="name it"):
        services.phase_source_set(phase=pipeline.phases.get(name="reinforcement"), user=alice, starts_from=None)
    with pytest.raises(ConfigError, match="earlier phase"):
        services.phase_source_set(phase=pipeline.phases.get(name="cold-start"), user=alice, starts_from=phase)


def test_a_live_launch_keeps_the_plan_together(pipeline: Pipeline, alice: User) -> None:
    services.pipeline_launch(pipeline=pipeline, user=alice)
    with pytest.raises(AlreadyLive):
        services.phase_remove(phase=pipeline.phases.get(name="rejection-sampling"), user=alice)
    with pytest.raises(AlreadyLive):
        services.phase_move(phase=pipeline.phases.get(name="rejection-sampling"), user=alice, position=1)


def test_a_clone_is_the_same_plan(pipeline: Pipeline, alice: User) -> None:
    made = services.pipeline_clone(pipeline=pipeline, user=alice, name="Tiny copy")
    one, other = services.pipeline_spec(pipeline), services.pipeline_spec(made)
    assert {**one, "name": ""} == {**other, "name": ""} and made.template == "article"
    with pytest.raises(ConfigError, match="already"):
        services.pipeline_clone(pipeline=pipeline, user=alice, name="Tiny copy")


def test_the_json_of_a_plan_makes_it_again(pipeline: Pipeline, api_erin: APIClient, api_bob: APIClient) -> None:
    spec = api_bob.get(f"{API}/pipelines/{pipeline.pk}/spec/").json()
    made = api_erin.post(f"{API}/pipelines/", {**spec["plan"], "name": "Again"}, format="json")
    assert made.status_code == 201, made.json()
    again = services.pipeline_spec(Pipeline.objects.get(pk=made.json()["id"]))
    assert {**again, "name": ""} == {**spec["plan"], "name": ""}


def test_the_commands_write_what_the_library_reads(pipeline: Pipeline, tmp_path: Path) -> None:
    """The script runs, with a trainer that only leaves a checkpoint behind, and each config.json is one of the library's."""
    text = selectors.pipeline_commands(pipeline).replace("python -m model_core train ", "leave ")
    script = 'leave() { mkdir -p "$1/checkpoints/step_00000003"; }\n' + text
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run, paths = RunDir(tmp_path / "runs" / "rejection-sampling").load()
    assert run.phase == "rejection_sampling" and paths.dataset is not None
    assert (paths.start_from, paths.rollouts_from) == (
        "runs/cold-start/checkpoints/step_00000003", "runs/reinforcement/checkpoints/step_00000003",
    )  # fmt: skip


def test_one_phase_runs_alone_on_the_newest_results(pipeline: Pipeline, alice: User, node: Node) -> None:
    phase = pipeline.phases.get(name="reinforcement")
    with pytest.raises(CheckpointError, match="has not succeeded"):
        services.phase_run(phase=phase, user=alice)
    launch = services.pipeline_launch(pipeline=pipeline, user=alice)
    checkpoint = succeed(launch.runs.get(name="cold-start"), node)
    run = services.phase_run(phase=phase, user=alice)
    assert run.launch is None and run.starts_from == checkpoint and run.gate_threshold == phase.gate_threshold
    assert run.budget_device_seconds == pytest.approx(2400 * 0.7) and run.state == "queued"
    newest = succeed(run, node)
    last = services.phase_run(phase=pipeline.phases.get(name="rejection-sampling"), user=alice)
    assert (last.starts_from, last.rollouts_from) == (checkpoint, newest), "what ran alone is built on too"


def judged(project: Project, user: User) -> Pipeline:
    version = make_version(project)
    phases: list[dict[str, Any]] = [
        {"name": "base", "phase": "cold_start"},
        {"name": "judge", "phase": "reward_model", "starts_from": "base", "gate_metric": ""},
        {"name": "pleased", "phase": "reinforcement", "starts_from": "base", "config": PREFERRED},
    ]
    for phase in phases:
        phase["dataset_version"] = version
    return services.pipeline_create(project=project, user=user, name="Judged", phases=phases)


def test_a_reward_model_of_the_launch_is_the_later_phases_reward(project: Project, alice: User, node: Node) -> None:
    pipeline = judged(project, alice)
    graph = selectors.pipeline_graph(pipeline)
    assert [edge["kind"] for edge in graph["edges"]] == ["starts_from", "starts_from", "reward_model"]
    launch = services.pipeline_launch(pipeline=pipeline, user=alice)
    succeed(launch.runs.get(name="base"), node)
    PhaseRun.objects.filter(name="judge").update(state=RunState.WAITING)
    schedule_once()
    pleased = launch.runs.get(name="pleased")
    assert (pleased.state, pleased.waiting_reason) == ("waiting", "Waits for judge.")
    made = succeed(launch.runs.get(name="judge"), node, number=2)
    schedule_once()
    pleased.refresh_from_db()
    assert pleased.state in {"queued", "starting"}
    directory = RunDir(run_dir(made.run_id, 2)).checkpoint(7)
    assert pleased.config["reward"]["settings"]["preference"]["checkpoint"] == str(directory)


def test_a_reward_names_only_an_earlier_phase_that_makes_one(project: Project, alice: User) -> None:
    pipeline = judged(project, alice)
    with pytest.raises(ConfigError, match="pleased builds on judge"):
        services.phase_remove(phase=pipeline.phases.get(name="judge"), user=alice)
    with pytest.raises(ConfigError, match="pleased builds on judge"):
        services.phase_move(phase=pipeline.phases.get(name="pleased"), user=alice, position=1)
    late = [{"phase": "cold_start"}, {"phase": "reinforcement", "starts_from": "cold-start", "config": PREFERRED}]
    with pytest.raises(ConfigError) as refused:
        services.pipeline_create(project=project, user=alice, name="late", phases=late)
    assert refused.value.field == "phases.1.config.reward.settings.preference.checkpoint"
    pipeline.phases.filter(name="judge").update(budget_fraction=0.1)
    with pytest.raises(ConfigError, match="writes none"):
        services.phase_add(pipeline=pipeline, user=alice, phase="reinforcement", name="on", starts_from="judge", budget_fraction=0.001)
    phase = pipeline.phases.get(name="pleased")
    with pytest.raises(ModelCoreError, match="judge has not succeeded"):
        services.phase_run(phase=phase, user=alice)


def test_the_others_give_a_share_in_proportion(pipeline: Pipeline, alice: User, api_alice: APIClient) -> None:
    before = dict(pipeline.phases.values_list("name", "budget_fraction"))
    start = {"phase": "reinforcement", "starts_from": "reinforcement"}
    services.phase_add(pipeline=pipeline, user=alice, rebalance=True, name="second", budget_fraction=0.2, **start)
    after = dict(pipeline.phases.values_list("name", "budget_fraction"))
    assert after.pop("second") == 0.2 and sum(after.values()) + 0.2 <= 1.0 + 1e-9
    assert after == {name: pytest.approx(share * 0.8, abs=1e-5) for name, share in before.items()}
    sent = api_alice.post(f"{API}/pipelines/{pipeline.pk}/phases/", {**start, "name": "third", "rebalance": True}, format="json")
    assert sent.status_code == 201 and sent.json()["budget_fraction"] == 0.2, "an equal part of five"
    with pytest.raises(ConfigError, match="leaves cold-start") as refused:
        services.phase_add(pipeline=pipeline, user=alice, rebalance=True, name="all", budget_fraction=0.999, **start)
    assert refused.value.field == "budget_fraction" and pipeline.phases.count() == 5


def test_a_full_plan_takes_a_phase_from_its_page(pipeline: Pipeline, client_erin: Client) -> None:
    new = reverse("phase-new", args=[pipeline.pk])
    form = client_erin.get(new).context["form"]
    assert form["rebalance"].value() is True and "reinforcement 0.7" in form["rebalance"].help_text
    values = {"phase": "reinforcement", "name": "second", "position": 3, "starts_from": pipeline.phases.get(name="reinforcement").pk}
    assert "whole budget" in client_erin.post(new, values).context["form"].errors["budget_fraction"][0]
    assert "“Place” is empty" in client_erin.post(new, {"name": "x"}).context["form"].errors["position"][0]
    assert client_erin.post(new, {**values, "rebalance": "on"}, follow=True).content.decode().count("second 0.25") == 1


def test_who_may_change_a_plan(pipeline: Pipeline, client_bob: Client, client_charlie: Client, client_erin: Client) -> None:
    phase = pipeline.phases.get(name="rejection-sampling")
    posts = [
        reverse("phase-act", args=[pipeline.pk, phase.pk, "earlier"]), reverse("phase-act", args=[pipeline.pk, phase.pk, "remove"]),
        reverse("pipeline-clone", args=[pipeline.pk]), reverse("phase-new", args=[pipeline.pk]),
    ]  # fmt: skip
    assert {client_bob.post(address).status_code for address in posts} == {403}
    assert {client_charlie.post(address).status_code for address in posts} == {404}
    code = reverse("pipeline-code", args=[pipeline.pk])
    shown = client_bob.get(code).content.decode()
    assert "python -m model_core train runs/cold-start" in shown and "$R1_KEY" in shown and client_charlie.get(code).status_code == 404
    pipeline.phases.filter(name="reinforcement").update(budget_fraction=0.5)
    assert "Add a phase" in client_erin.get(reverse("pipeline-detail", args=[pipeline.pk])).content.decode()
    new = reverse("phase-new", args=[pipeline.pk])
    assert client_erin.get(new).status_code == 200
    assert client_erin.post(new, {"phase": "reinforcement", "position": 3}).status_code == 422, "it needs a start and a name"
    start = pipeline.phases.get(name="reinforcement").pk
    sent = client_erin.post(new, {"phase": "reinforcement", "name": "second", "position": 3, "starts_from": start})
    assert sent.status_code == 302 and names(pipeline)[-1] == "second"
    second = pipeline.phases.get(name="second")
    edit = reverse("phase-edit", args=[pipeline.pk, second.pk])
    assert "Change what it builds on" in client_erin.get(edit).content.decode()
    client_erin.post(reverse("phase-act", args=[pipeline.pk, second.pk, "source"]), {"starts_from": str(phase.pk)})
    second.refresh_from_db()
    assert second.starts_from == phase
    assert client_erin.post(reverse("phase-act", args=[pipeline.pk, second.pk, "burn"])).status_code == 404
    client_erin.post(reverse("phase-act", args=[pipeline.pk, second.pk, "remove"]))
    assert names(pipeline)[-1] == "rejection-sampling"


def test_plans_through_the_api(pipeline: Pipeline, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient) -> None:
    root = f"{API}/pipelines/{pipeline.pk}"
    last = pipeline.phases.get(name="rejection-sampling").pk
    for path in ("phases/", "clone/", f"phases/{last}/move/", f"phases/{last}/run/", f"phases/{last}/source/"):
        address = f"{root}/{path}"
        assert api_bob.post(address, {}, format="json").status_code == 403 and api_charlie.post(address).status_code == 404
    assert api_bob.delete(f"{root}/phases/{last}/").status_code == 403
    assert api_erin.post(f"{root}/phases/{last}/source/", {"starts_from": "nobody"}, format="json").status_code == 400
    changed = api_erin.post(f"{root}/phases/{last}/source/", {"starts_from": None}, format="json")
    assert changed.status_code == 200 and changed.json()["starts_from"] is None
    assert api_erin.post(f"{root}/phases/{last}/move/", {"position": 0}, format="json").status_code == 400
    assert api_erin.post(f"{root}/phases/{last}/run/").status_code == 400
    assert api_erin.delete(f"{root}/phases/{last}/").status_code == 204
    body = {"phase": "rejection_sampling", "starts_from": "cold-start", "rollouts_from": "reinforcement"}
    added = api_erin.post(f"{root}/phases/", body, format="json")
    assert added.status_code == 201 and added.json()["position"] == 2
    assert api_erin.post(f"{root}/clone/", {"name": "Copy"}, format="json").status_code == 201
