"""The deployment pages: who sees them, the typed form, each state worded, buttons that ask first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from model_core.errors import ConfigError
from model_core.serving.engines import ENGINES
from r1platform.models import Device, DeviceKind, DeviceLease, Node, Project
from serving_app import services
from serving_app.forms import PREFIX, EngineForm
from serving_app.models import Deployment, DeploymentRevision, DeploymentTransition, Replica
from serving_app.placement import holder_of
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


def test_the_log_of_a_replica_is_read_through_its_own_deployment_only(
    project: Project, deployment: Deployment, checkpoint: Checkpoint, client_alice: Client
) -> None:
    other = make_deployment(project, checkpoint, name="other")
    theirs = Replica.objects.get(revision__deployment=other)
    assert client_alice.get(reverse("replica-log", args=[deployment.pk, theirs.pk])).status_code == 404


@pytest.mark.parametrize("state", DeploymentState.values)
def test_every_state_of_a_deployment_is_worded(
    state: str, project: Project, checkpoint: Checkpoint, client_alice: Client
) -> None:
    made = make_deployment(
        project, checkpoint, state=state, state_reason="Because of a test.", is_asleep=state == DeploymentState.ASLEEP
    )
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


def test_when_it_sleeps_is_set_on_the_page_and_said(
    deployment: Deployment, client_erin: Client, client_bob: Client
) -> None:
    address = reverse("deployment-act", args=[deployment.pk, "idle"])
    for minutes, then in (("30", 1800), ("", 1800), ("-1", 1800), ("9" * 6, 1800), ("x", 1800), ("0", 0), ("5", 300)):
        client_erin.post(address, {"minutes": minutes})
        deployment.refresh_from_db()
        assert deployment.idle_seconds == then, minutes
    assert "sleeps after 5 min without requests" in detail(client_bob, deployment)
    Replica.objects.update(state="stopped", finished_at=timezone.now())
    Deployment.objects.update(state="asleep", is_asleep=True, state_reason="Nobody asked for 5 minutes.")
    page = detail(client_bob, deployment)
    assert "Asleep, starts at the next question" in page and "Nobody asked for 5 minutes." in page and "?deployment=" in page
    chat = client_bob.get(reverse("playground"), {"deployment": deployment.pk}).content.decode()
    assert "does not answer now" not in chat and f"with {deployment.name}" in chat
    client_erin.post(reverse("deployment-act", args=[deployment.pk, "start"]))
    deployment.refresh_from_db()
    assert deployment.state == "pending" and not deployment.is_asleep


def test_empty_lists_teach_the_next_step(client_alice: Client, client_bob: Client) -> None:
    assert "There is no checkpoint yet" in client_alice.get(reverse("deployment-list")).content.decode()
    assert "An editor of this project" in client_bob.get(reverse("deployment-list")).content.decode()
    assert "There is nothing to deploy" in client_alice.get(reverse("deployment-new")).content.decode()


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


def detail(client: Client, deployment: Deployment) -> str:
    return client.get(reverse("deployment-detail", args=[deployment.pk])).content.decode()


def test_replicas_are_scaled_on_the_page_and_come_back_after_a_stop(
    deployment: Deployment, client_erin: Client, client_bob: Client
) -> None:
    address = reverse("deployment-act", args=[deployment.pk, "scale"])
    assert address in detail(client_erin, deployment) and address not in detail(client_bob, deployment)
    client_erin.post(address, {"replicas": 3})
    assert "1 of 3 ready" in detail(client_bob, deployment)
    for wrong in ("", "0", "-1", "x", "17", "9" * 20):
        client_erin.post(address, {"replicas": wrong})
    deployment.refresh_from_db()
    assert deployment.desired_replicas == 3
    Replica.objects.update(state="stopped", finished_at=timezone.now())
    client_erin.post(reverse("deployment-act", args=[deployment.pk, "stop"]))
    page = detail(client_erin, deployment)
    assert "A start brings back 3 replicas." in page and address not in page
    client_erin.post(reverse("deployment-act", args=[deployment.pk, "start"]))
    deployment.refresh_from_db()
    assert deployment.desired_replicas == 3


def test_a_name_that_another_project_has_is_explained_without_saying_whose(
    charlie: User, node: Node, checkpoint: Checkpoint, client_erin: Client, project: Project, alice: User
) -> None:
    elsewhere = Project.objects.get(memberships__user=charlie)
    make_deployment(elsewhere, make_checkpoint(make_run(elsewhere), node), name="taken")
    sent = {"checkpoint": checkpoint.pk, "name": "taken", "engine": "builtin", "replicas": 1}
    page = client_erin.post(reverse("deployment-new"), sent).content.decode()
    assert "shared by all projects" in page and elsewhere.name not in page
    with pytest.raises(ConfigError, match="shared by all projects"):
        services.deployment_create(project=project, user=alice, name="taken", checkpoint=checkpoint, engine="builtin")


def test_devices_are_spoken_of_only_where_some_are_held(
    deployment: Deployment, node: Node, client_erin: Client
) -> None:
    assert "devices" not in detail(client_erin, deployment)
    gpu = Device.objects.create(node=node, kind=DeviceKind.CUDA, index=0, name="GPU", memory_bytes=1)
    DeviceLease.objects.create(device=gpu, holder=holder_of(Replica.objects.get()))
    assert "frees the devices held" in " ".join(detail(client_erin, deployment).split())


def test_the_time_beside_a_revision_is_its_own(deployment: Deployment, client_alice: Client) -> None:
    revision = DeploymentRevision.objects.get()
    DeploymentRevision.objects.update(created_at=timezone.now() - timedelta(days=3))
    revision.refresh_from_db()
    page = detail(client_alice, deployment)
    assert page.count(revision.created_at.isoformat()) == 2 and deployment.created_at.isoformat() not in page


def test_history_speaks_in_the_words_of_the_badges(deployment: Deployment, client_alice: Client) -> None:
    DeploymentTransition.objects.create(deployment=deployment, before="pending", after="starting")
    page = detail(client_alice, deployment)
    assert "from Pending" in page and ">Starting</span>" in page and "from pending" not in page


@pytest.mark.parametrize(("state", "hidden"), [("ready", False), ("stopping", False), ("stopped", True)])
def test_the_badge_of_the_connection_stands_only_while_something_can_change(
    state: str, hidden: bool, deployment: Deployment, client_alice: Client
) -> None:
    Deployment.objects.update(state=state)
    for page in (detail(client_alice, deployment), client_alice.get(reverse("deployment-list")).content.decode()):
        assert ("data-moves hidden" in page) == hidden
