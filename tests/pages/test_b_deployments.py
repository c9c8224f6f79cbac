"""The deployment pages: who sees them, the typed form, each state worded, buttons that ask first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from model_core.serving.engines import ENGINES
from r1platform.models import Node, Project
from serving_app.forms import PREFIX, EngineForm
from serving_app.models import Deployment, DeploymentRevision, Replica
from serving_app.states import DeploymentState, ReplicaState
from serving_app.views.snippets import chat_snippets
from tests.pages.b_rows import make_checkpoint, make_deployment, make_run
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db


@pytest.fixture
def checkpoint(project: Project, node: Node) -> Checkpoint:
    return make_checkpoint(make_run(project, state="succeeded"), node, 40, is_final=True)


@pytest.fixture
def deployment(project: Project, checkpoint: Checkpoint) -> Deployment:
    return make_deployment(project, checkpoint)


def test_members_see_it_and_strangers_do_not_learn_that_it_exists(
    deployment: Deployment, client_alice: Client, client_bob: Client, client_charlie: Client, client: Client
) -> None:
    replica = Replica.objects.get()
    for address in (
        reverse("deployment-detail", args=[deployment.pk]),
        reverse("replica-log", args=[deployment.pk, replica.pk]),
    ):
        assert client_alice.get(address).status_code == 200
        assert client_bob.get(address).status_code == 200
        assert client_charlie.get(address).status_code == 404
        assert client.get(address).status_code == 302
    assert deployment.name not in client_charlie.get(reverse("deployment-list")).content.decode()


def test_the_log_of_a_replica_is_read_through_its_own_deployment_only(
    project: Project, deployment: Deployment, checkpoint: Checkpoint, client_alice: Client
) -> None:
    other = make_deployment(project, checkpoint, name="other")
    theirs = Replica.objects.get(revision__deployment=other)
    assert client_alice.get(reverse("replica-log", args=[deployment.pk, theirs.pk])).status_code == 404


@pytest.mark.parametrize("verb", ["stop", "start", "delete"])
def test_only_editors_act(
    verb: str, deployment: Deployment, client_bob: Client, client_charlie: Client, client_erin: Client, client: Client
) -> None:
    address = reverse("deployment-act", args=[deployment.pk, verb])
    assert client_bob.post(address, {"name": deployment.name}).status_code == 403
    assert client_charlie.post(address, {"name": deployment.name}).status_code == 404
    assert client.post(address).status_code == 302
    assert client_erin.get(address).status_code == 405
    deployment.refresh_from_db()
    assert deployment.state == "ready" and deployment.deleted_at is None


@pytest.mark.parametrize("name", ["deployment-new", "deployment-revise"])
def test_only_editors_reach_the_forms(
    name: str, deployment: Deployment, client_bob: Client, client_erin: Client, client: Client
) -> None:
    address = reverse(name, args=[deployment.pk] if name == "deployment-revise" else [])
    assert client_erin.get(address).status_code == 200
    assert client_bob.get(address).status_code == 403
    assert client_bob.post(address, {}).status_code == 403
    assert client.get(address).status_code == 302


@pytest.mark.parametrize("state", DeploymentState.values)
def test_every_state_of_a_deployment_is_worded(
    state: str, project: Project, checkpoint: Checkpoint, client_alice: Client
) -> None:
    made = make_deployment(project, checkpoint, state=state, state_reason="Because of a test.")
    page = client_alice.get(reverse("deployment-detail", args=[made.pk])).content.decode()
    assert DeploymentState(state).label in page and "Because of a test." in page


@pytest.mark.parametrize("state", [s for s in ReplicaState.values if s != "ready"])
def test_every_state_of_a_replica_is_worded(state: str, deployment: Deployment, client_alice: Client) -> None:
    Replica.objects.update(state=state, state_reason="3 of 7 tensors are loaded.")
    page = client_alice.get(reverse("deployment-detail", args=[deployment.pk])).content.decode()
    assert ReplicaState(state).label in page and "3 of 7 tensors" in page


def test_the_live_part_has_no_frame(deployment: Deployment, client_alice: Client) -> None:
    address = reverse("deployment-detail", args=[deployment.pk])
    part = client_alice.get(address, headers={"X-Part": "live"}).content.decode()
    assert 'data-part="replicas"' in part and "<html" not in part


def test_deploying_a_checkpoint_through_the_form(project: Project, checkpoint: Checkpoint, client_erin: Client) -> None:
    page = client_erin.get(reverse("deployment-new"), {"checkpoint": checkpoint.pk})
    form, engine = page.context["form"], page.context["engine_form"]
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    values |= {engine.add_prefix(name): field.initial for name, field in engine.fields.items()}
    sent = {name: value for name, value in values.items() if value is not None and value is not False}
    answer = client_erin.post(reverse("deployment-new"), sent)
    made = Deployment.objects.get()
    assert answer.status_code == 302 and answer["Location"] == reverse("deployment-detail", args=[made.pk])
    revision = DeploymentRevision.objects.get()
    assert revision.checkpoint == checkpoint and revision.engine == values["engine"]
    assert revision.engine_config == ENGINES.get(revision.engine).Config().resolved()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "two words"}, "name"),
        ({"checkpoint": 10**9}, "checkpoint"),
        ({"replicas": 0}, "replicas"),
        ({"engine": "x"}, "engine"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_made(
    change: dict[str, Any], field: str, checkpoint: Checkpoint, client_erin: Client
) -> None:
    sent = {"checkpoint": checkpoint.pk, "name": "fine", "engine": "builtin", "replicas": 1} | change
    answer = client_erin.post(reverse("deployment-new"), sent)
    assert answer.status_code == 422 and field in answer.context["form"].errors
    assert not Deployment.objects.exists()


def test_a_taken_name_is_refused_with_the_remedy(
    deployment: Deployment, checkpoint: Checkpoint, client_erin: Client
) -> None:
    sent = {"checkpoint": checkpoint.pk, "name": deployment.name, "engine": "builtin", "replicas": 1}
    answer = client_erin.post(reverse("deployment-new"), sent)
    assert "Choose another name." in answer.content.decode()


def test_a_checkpoint_of_others_cannot_be_deployed(
    charlie: Any, node: Node, project: Project, client_erin: Client
) -> None:
    theirs = make_checkpoint(make_run(Project.objects.get(memberships__user=charlie)), node)
    sent = {"checkpoint": theirs.pk, "name": "stolen", "engine": "builtin", "replicas": 1}
    assert client_erin.post(reverse("deployment-new"), sent).status_code == 422
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("name", ENGINES.names())
def test_the_form_of_each_engine_is_made_from_its_schema_and_keeps_the_defaults(name: str) -> None:
    config = ENGINES.get(name).Config
    blank = EngineForm(engine=name)
    assert set(blank.fields) == set(config.model_fields)
    sent = {f"{PREFIX}-{key}": f.initial for key, f in blank.fields.items() if f.initial not in (None, False)}
    form = EngineForm(sent, engine=name)
    assert form.is_valid(), form.errors
    if all(not field.is_required() for field in config.model_fields.values()):
        assert form.config() == config().resolved()


def test_a_setting_out_of_range_is_said_at_its_field() -> None:
    form = EngineForm(
        {f"{PREFIX}-{name}": "-1" for name in ENGINES.get("builtin").Config.model_fields}, engine="builtin"
    )
    assert not form.is_valid()
    assert set(form.errors) <= set(form.fields)


def test_deleting_needs_the_name_and_keeps_the_row(deployment: Deployment, client_erin: Client) -> None:
    address = reverse("deployment-act", args=[deployment.pk, "delete"])
    answer = client_erin.post(address, {"name": "wrong"}, follow=True)
    assert "Nothing was deleted" in answer.content.decode()
    deployment.refresh_from_db()
    assert deployment.deleted_at is None
    assert client_erin.post(address, {"name": deployment.name})["Location"] == reverse("deployment-list")
    deployment.refresh_from_db()
    assert deployment.deleted_at is not None
    assert client_erin.get(reverse("deployment-detail", args=[deployment.pk])).status_code == 404


def test_stopping_says_what_is_lost_first(deployment: Deployment, client_erin: Client) -> None:
    page = client_erin.get(reverse("deployment-detail", args=[deployment.pk])).content.decode()
    assert "Requests get an error that says so" in page
    client_erin.post(reverse("deployment-act", args=[deployment.pk, "stop"]))
    deployment.refresh_from_db()
    assert deployment.desired_replicas == 0


def test_empty_lists_teach_the_next_step(client_alice: Client, client_bob: Client) -> None:
    assert "There is no checkpoint yet" in client_alice.get(reverse("deployment-list")).content.decode()
    assert "An editor of this project" in client_bob.get(reverse("deployment-list")).content.decode()
    assert "There is no checkpoint to deploy" in client_alice.get(reverse("deployment-new")).content.decode()


def test_the_cost_of_the_list_does_not_grow(
    project: Project, checkpoint: Checkpoint, client_alice: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    for number in range(20):
        make_deployment(project, checkpoint, name=f"model-{number}")
    client_alice.get(reverse("deployment-list"))
    with django_assert_max_num_queries(16):
        client_alice.get(reverse("deployment-list"))


def test_snippets_hold_no_key_and_quote_what_people_wrote() -> None:
    messages = [{"role": "user", "content": 'It\'s "1" + $2\n'}]
    snippets = dict(chat_snippets(base_url="http://x", model="m", messages=messages, parameters={"temperature": 0.5}))
    compile(snippets["Python"], "snippet", "exec")
    assert "'\\''" in snippets["curl"] and "r1_YOUR_KEY" in snippets["curl"]
    assert "temperature=0.5" in snippets["Python"]
