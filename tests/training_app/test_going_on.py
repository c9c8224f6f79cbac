"""Pipelines that go on from a checkpoint: what is refused, what they become when launched, and the reward model that nobody names."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from model_core.errors import CheckpointError, ConfigError, DataError, ModelCoreError
from model_core.rundir import RunDir
from r1platform.lib.storage import run_dir
from r1platform.models import Node, Project
from r1platform.services import project_create
from serving_app.selectors import formers_of
from tests.pages.b_rows import make_deployment
from tests.training_app.rows import make_attempt, make_version
from training_app import services
from training_app.models import Checkpoint, DatasetVersion, PhaseRun, Pipeline
from training_app.scheduling import schedule_once
from training_app.states import RunState

pytestmark = pytest.mark.django_db
PAIRS = {"source": "jsonl", "mapping": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}}
TRAINED = {"held_out": {"num_problems": 32, "max_new_tokens": 24}, "precision": {"dtype": "bfloat16"}}


@pytest.fixture
def start(project: Project, node: Node) -> Checkpoint:
    return made_by(project, node, "cold_start", config=TRAINED)


@pytest.fixture
def pairs(project: Project) -> DatasetVersion:
    return make_version(project, config=PAIRS)


@pytest.fixture
def plan(project: Project, alice: User, start: Checkpoint, pairs: DatasetVersion) -> Pipeline:
    return make_plan(project, alice, pairs, start)


def make_plan(project: Project, user: User, version: DatasetVersion, start: Checkpoint | None, **values: Any) -> Pipeline:
    wanted = {"template": "preference", "name": "Preferred", **values}
    return services.pipeline_from_template(project=project, user=user, dataset_version=version, starts_from=start, **wanted)


def made_by(project: Project, node: Node, phase: str, **values: Any) -> Checkpoint:
    run = PhaseRun.objects.create(project=project, name=phase, phase=phase, **{"config": {}, "state": "succeeded", **values})
    return Checkpoint.objects.create(run=run, attempt=make_attempt(run, node, state="succeeded"), step=8, is_final=True)


def test_the_reward_model_of_the_launch_judges_and_both_go_on_from_the_checkpoint(
    plan: Pipeline, start: Checkpoint, alice: User, node: Node
) -> None:
    policy = plan.phases.get(name="preference")
    assert policy.config["reward"]["settings"]["preference"]["checkpoint"] == "phase:reward-model"
    assert policy.config["precision"]["dtype"] == "bfloat16", "as the model was trained"
    assert policy.config["phase_config"]["max_new_tokens"] == policy.config["held_out"]["max_new_tokens"] == 24
    launch = services.pipeline_launch(pipeline=plan, user=alice)
    judge, policy_run = launch.runs.order_by("position")
    assert judge.starts_from == policy_run.starts_from == start
    assert (judge.state, policy_run.state, policy_run.waiting_reason) == ("queued", "waiting", "Waits for reward-model.")
    learnt = Checkpoint.objects.create(run=judge, attempt=make_attempt(judge, node, state="succeeded"), step=7, is_final=True)
    PhaseRun.objects.filter(pk=judge.pk).update(state=RunState.SUCCEEDED)
    schedule_once()
    policy_run.refresh_from_db()
    named = policy_run.config["reward"]["settings"]["preference"]["checkpoint"]
    assert named == str(RunDir(run_dir(judge.pk, 1)).checkpoint(learnt.step)) and policy_run.starts_from == start


def test_what_a_template_cannot_go_on_from_is_refused_at_the_field(
    project: Project, node: Node, alice: User, start: Checkpoint, pairs: DatasetVersion
) -> None:
    problems, elsewhere = make_version(project), project_create(user=alice, name="Elsewhere")
    gone = made_by(project, node, "cold_start")
    Checkpoint.objects.filter(pk=gone.pk).update(removed_at="2026-01-01T00:00:00Z")
    gone.refresh_from_db()
    wrong: list[tuple[dict[str, Any], type[ModelCoreError], str]] = [
        ({"start": None}, CheckpointError, "Choose its checkpoint"),
        ({"start": gone}, CheckpointError, "was removed"),
        ({"start": made_by(project, node, "reward_model")}, CheckpointError, "is a reward model"),
        ({"start": made_by(elsewhere, node, "cold_start")}, CheckpointError, "no such checkpoint"),
        ({"template": "article", "version": problems}, CheckpointError, "Leave this empty"),
        ({"version": problems}, DataError, "has none"),
        ({"template": "fine_tuning"}, DataError, "learns nothing"),
    ]
    for values, kind, words in wrong:
        given = {"version": pairs, "start": start, **values}
        with pytest.raises(kind, match=words) as refused:
            make_plan(project, alice, **given)
        assert refused.value.field == ("dataset_version" if kind is DataError else "starts_from")
    assert not Pipeline.objects.exists()


def test_a_plan_whose_checkpoint_is_gone_is_not_launched(plan: Pipeline, start: Checkpoint, alice: User) -> None:
    Checkpoint.objects.filter(pk=start.pk).update(removed_at="2026-01-01T00:00:00Z")
    with pytest.raises(CheckpointError, match="was removed"):
        services.pipeline_launch(pipeline=plan, user=alice)
    assert not plan.launches.exists()


def test_a_phase_starts_from_one_place(plan: Pipeline, start: Checkpoint, alice: User, project: Project) -> None:
    judge, policy = plan.phases.order_by("position")
    with pytest.raises(IntegrityError), transaction.atomic():
        plan.phases.filter(pk=policy.pk).update(starts_from=judge)
    tuned = services.phase_add(
        pipeline=plan, user=alice, position=0, phase="cold_start", name="tuned", from_checkpoint=start, rebalance=True
    )
    policy.refresh_from_db()
    services.phase_source_set(phase=policy, user=alice, starts_from=tuned)
    policy.refresh_from_db()
    assert (policy.starts_from, policy.from_checkpoint) == (tuned, None)
    services.phase_source_set(phase=policy, user=alice, from_checkpoint=start)
    policy.refresh_from_db()
    assert (policy.starts_from, policy.from_checkpoint) == (None, start)
    with pytest.raises(ConfigError, match="starts from the checkpoint of an earlier phase") as refused:
        services.phase_source_set(phase=policy, user=alice, starts_from=None)
    assert refused.value.field == "starts_from"
    both = {"phase": "reinforcement", "starts_from": "one", "from_checkpoint": start}
    with pytest.raises(ConfigError, match="not from both"):
        services.pipeline_create(project=project, user=alice, name="Both", phases=[{"phase": "cold_start", "name": "one"}, both])


def test_copies_code_and_a_phase_alone_keep_the_checkpoint(plan: Pipeline, start: Checkpoint, alice: User, client_alice: Client) -> None:
    copy = services.pipeline_clone(pipeline=plan, user=alice, name="Copy")
    assert {phase.from_checkpoint for phase in copy.phases.all()} == {start}
    alone = services.phase_run(phase=copy.phases.get(name="reward-model"), user=alice)
    assert alone.starts_from == start
    code = client_alice.get(reverse("pipeline-code", args=[plan.pk])).content.decode()
    assert f"checkpoints/{start.pk}" in code and "newest reward-model" in code
    page = client_alice.get(reverse("pipeline-detail", args=[plan.pk])).content.decode()
    assert f"step 8 of run {start.run_id}" in page
    assert f"run {start.run_id}, cold start" in client_alice.get(reverse("phase-edit", args=[plan.pk, plan.phases.get(position=0).pk])).content.decode()


def test_the_api_names_the_checkpoint(
    project: Project, start: Checkpoint, pairs: DatasetVersion, api_alice: APIClient, api_charlie: APIClient
) -> None:
    sent = {"project": project.pk, "name": "P", "template": "preference", "dataset_version": pairs.pk, "starts_from": start.pk}
    assert api_charlie.post("/api/v1/pipelines/", sent, format="json").status_code in {400, 403, 404}
    made = api_alice.post("/api/v1/pipelines/", sent, format="json").json()
    assert [phase["from_checkpoint"] for phase in made["phases"]] == [start.pk, start.pk]
    plan = api_alice.get(f"/api/v1/pipelines/{made['id']}/spec/").json()["plan"]
    again = api_alice.post("/api/v1/pipelines/", {"project": project.pk, **plan, "name": "Again"}, format="json")
    assert again.status_code == 201 and again.json()["phases"][1]["from_checkpoint"] == start.pk
    phase = f"/api/v1/pipelines/{made['id']}/phases/{made['phases'][1]['id']}/source/"
    assert api_alice.post(phase, {"from_checkpoint": None}, format="json").status_code == 400
    templates = {one["name"]: one for one in api_alice.get("/api/v1/pipeline-templates/").json()}
    assert templates["preference"]["goes_on"] and not templates["article"]["goes_on"]
    refused = api_alice.post("/api/v1/pipelines/", {**plan, "name": "X", "starts_from": start.pk}, format="json")
    assert refused.status_code == 400 and "from_checkpoint" in str(refused.json())


def test_a_version_of_pairs_opens_the_form_with_what_learns_from_pairs(
    project: Project, start: Checkpoint, pairs: DatasetVersion, client_alice: Client
) -> None:
    form = client_alice.get(reverse("pipeline-new"), {"dataset_version": pairs.pk}).context["form"]
    assert form["template"].value() == "preference" and form["starts_from"].value() == start.pk
    problems = make_version(project)
    sent = {"template": "article", "name": "Sums", "dataset_version": problems.pk, "starts_from": start.pk, "seed": 0}
    assert client_alice.post(reverse("pipeline-new"), sent).status_code == 302, "what is not shown does not count"
    assert client_alice.get(reverse("pipeline-new")).context["form"]["template"].value() == "article"


def test_a_reward_model_is_chosen_and_not_typed(
    project: Project, node: Node, alice: User, start: Checkpoint, plan: Pipeline, client_alice: Client
) -> None:
    judge = made_by(project, node, "reward_model")
    directory = str(RunDir(run_dir(judge.run_id, 1)).checkpoint(judge.step))
    page = client_alice.get(reverse("run-new"), {"phase": "reinforcement", "starts_from": start.pk})
    field = "reward.settings.preference.checkpoint"
    sent = {f"config-{name}": str(value) for name in page.context["config"].fields
            if (value := page.context["config"][name].value()) not in (None, False)}  # fmt: skip
    sent |= {"name": "By preference", "dataset_version": str(make_version(project).pk), "starts_from": str(start.pk)}
    sent |= {"config-reward.weights.preference": "1"}
    address = f"{reverse('run-new')}?phase=reinforcement"
    refused = client_alice.post(address, sent)
    assert refused.status_code == 422 and field in refused.context["config"].errors
    assert client_alice.post(address, {**sent, f"config-{field}": str(judge.pk)}).status_code == 302
    made = PhaseRun.objects.get(name="By preference")
    assert made.config["reward"]["settings"]["preference"]["checkpoint"] == directory
    again = client_alice.get(reverse("run-new"), {"clone": made.pk}).context["config"]
    assert again[field].value() == str(judge.pk) and directory not in str(again["reward.settings"].value())
    shown = client_alice.get(reverse("run-detail", args=[judge.run_id, "checkpoints"])).content.decode()
    assert "Reinforce with it" in shown and ">Deploy<" not in shown, "it writes nothing that could be served"
    offered = client_alice.get(reverse("run-new"), {"phase": "reinforcement", "reward_model": judge.pk}).context["config"]
    assert (offered[field].value(), offered["reward.weights.preference"].value()) == (str(judge.pk), 1.0)
    policy = plan.phases.get(name="preference")
    of_phase = client_alice.get(reverse("phase-edit", args=[plan.pk, policy.pk])).context["config"]
    assert of_phase[field].value() == "phase:reward-model" and str(judge.pk) in dict(of_phase.fields[field].choices)


def test_formers_are_those_that_serve_what_it_was_made_from(project: Project, node: Node, start: Checkpoint) -> None:
    middle = made_by(project, node, "reinforcement", starts_from=start)
    newest = made_by(project, node, "rejection_sampling", starts_from=start, rollouts_from=middle)
    first, second = make_deployment(project, start, name="first"), make_deployment(project, middle, name="second")
    make_deployment(project, newest, name="newest")
    assert formers_of(newest, project=project) == [first, second] and formers_of(middle, project=project) == [first]
    assert formers_of(start, project=project) == []
