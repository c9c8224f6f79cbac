"""The frame of a page: whose project it shows, what the switcher tells apart, what the palette finds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.models import Membership, Node, Project, Role
from r1platform.services import project_create
from tests.pages.b_rows import make_checkpoint, make_conversation, make_deployment, make_launch, make_run
from training_app.models import Dataset, DatasetVersion, PhaseRun


@pytest.fixture
def other(alice: User, project: Project) -> Project:
    return project_create(user=alice, name="Other")


def pages(project: Project, node: Node, user: User) -> dict[str, str]:
    """Address of one page of each kind of thing."""
    run = make_run(project, launch=make_launch(project))
    deployment = make_deployment(project, make_checkpoint(run, node))
    dataset = Dataset.objects.create(project=project, name="Sums", kind="self")
    DatasetVersion.objects.create(dataset=dataset, number=1, config={})
    assert run.launch is not None
    return {
        "run": reverse("run-detail", args=[run.pk]),
        "launch": reverse("launch-detail", args=[run.launch.pk]),
        "pipeline": reverse("pipeline-detail", args=[run.launch.pipeline_id]),
        "dataset": reverse("dataset-detail", args=[dataset.pk]),
        "version": reverse("version-detail", args=[dataset.pk, 1]),
        "deployment": reverse("deployment-detail", args=[deployment.pk]),
        "conversation": reverse("conversation", args=[make_conversation(project, user, deployment).pk]),
    }


def switched_to(page: str) -> str:
    """The name in the head of the rail."""
    found = re.search(r'class="project-name">([^<]*)<', page)
    assert found
    return found[1]


@pytest.mark.parametrize("kind", ["run", "launch", "pipeline", "dataset", "version", "deployment", "conversation"])
def test_a_page_of_another_project_of_mine_takes_the_frame_along(
    client_alice: Client, alice: User, project: Project, other: Project, node: Node, kind: str
) -> None:
    url = pages(project, node, alice)[kind]
    assert switched_to(client_alice.get(reverse("overview"), {"project": other.pk}).content.decode()) == "Other"
    assert switched_to(client_alice.get(url).content.decode()) == "Sums"
    assert "better sums" in client_alice.get(reverse("rail-now")).content.decode()
    assert "better sums" in client_alice.get(reverse("palette"), {"q": "better"}).content.decode()
    assert switched_to(client_alice.get(reverse("node-list")).content.decode()) == "Sums", "it is remembered"


def test_a_part_of_a_page_switches_nothing(client_alice: Client, project: Project, other: Project) -> None:
    """Another tab that stays fresh must not move this one."""
    run = make_run(project)
    client_alice.get(reverse("overview"), {"project": other.pk})
    assert client_alice.get(reverse("run-header", args=[run.pk])).status_code == 200
    assert switched_to(client_alice.get(reverse("overview")).content.decode()) == "Other"


def test_names_that_are_not_unique_come_with_the_short_name(client_alice: Client, alice: User, other: Project) -> None:
    twin = project_create(user=alice, name="Sums")
    page = client_alice.get(reverse("overview")).content.decode()
    assert re.search(r">Sums<br><small[^>]*>sums</small>", page)
    assert re.search(rf">Sums<br><small[^>]*>{twin.slug}</small>", page)
    assert f"<small class=\"muted mono\">{other.slug}<" not in page


def found(client: Client, text: str) -> list[dict[str, Any]]:
    """What the palette lists: of the answer, what holds every word, as its script picks it."""
    items = client.get(reverse("palette"), {"q": text}).json()["items"]
    return [item for item in items if all(word in f"{item['label']} {item['kind']}".lower() for word in text.lower().split())]


def test_the_palette_finds_by_kind_number_and_name(client_alice: Client, project: Project) -> None:
    runs = [make_run(project, state=state) for state in ("running", "succeeded")]
    launch = make_launch(project)
    for run in runs:
        url = reverse("run-detail", args=[run.pk])
        for text in (f"run {run.pk}", f"{run.pk} RUN", f"run {run.state}", f"better run {run.pk}"):
            assert url in {item["url"] for item in found(client_alice, text)}, text
    assert not found(client_alice, f"run {runs[1].pk} failed")
    assert reverse("launch-detail", args=[launch.pk]) in {item["url"] for item in found(client_alice, "launch tiny #1")}
    assert [item["url"] for item in found(client_alice, "stop")] == [reverse("run-detail", args=[runs[0].pk])]


def test_the_very_number_comes_before_names_that_hold_it(client_alice: Client, project: Project) -> None:
    wanted = make_run(project, state="succeeded")
    for _ in range(12):
        make_run(project, name=f"sums of {wanted.pk} digits", state="succeeded")
    assert PhaseRun.objects.count() > 8
    assert reverse("run-detail", args=[wanted.pk]) in {item["url"] for item in found(client_alice, f"run {wanted.pk}")}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("new run", "New single run"),
        ("new dataset", "New dataset"),
        ("pipeline new", "New pipeline"),
        ("launch", "Launch a pipeline"),
        ("deploy", "Deploy a checkpoint"),
        ("new chat", "New chat"),
        ("api key", "Make an API key"),
    ],
)
def test_the_palette_offers_the_actions(client_alice: Client, client_bob: Client, text: str, label: str) -> None:
    assert label in {item["label"] for item in found(client_alice, text)}
    viewer_too = label in {"New chat", "Make an API key"}
    assert (label in {item["label"] for item in found(client_bob, text)}) is viewer_too


def test_a_viewer_is_offered_no_stop(client_bob: Client, project: Project) -> None:
    make_run(project)
    assert not found(client_bob, "stop")
    Membership.objects.filter(user__username="bob").update(role=Role.EDITOR)
    assert found(client_bob, "stop")
