"""A form acts on the project that its page shows, though another tab has switched since; the audit is the owners'."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from r1platform.access import FORM_PROJECT
from r1platform.models import Membership, Project, Role
from r1platform.services import member_set, project_create
from training_app.models import Launch, Pipeline
from training_app.states import LaunchState, RunState


@pytest.fixture
def other(alice: User, project: Project) -> Project:
    return project_create(user=alice, name="Other")


def hidden_projects(page: str, action: str) -> list[str]:
    """The project that each form with this action names."""
    forms = re.findall(rf'<form method="post" action="{re.escape(action)}".*?</form>', page, re.DOTALL)
    return [value for form in forms for value in re.findall(rf'name="{FORM_PROJECT}" value="(\d+)"', form)]


def test_members_are_set_in_the_project_of_the_page(client_alice: Client, project: Project, other: Project, erin: User) -> None:
    save = reverse("member-save")
    page = client_alice.get(reverse("settings-project"), {"project": project.pk}).content.decode()
    shown = hidden_projects(page, save)
    assert len(shown) == page.count(f'action="{save}"') and set(shown) == {str(project.pk)}

    client_alice.get(reverse("overview"), {"project": other.pk})  # another tab
    User.objects.create_user("dora")
    client_alice.post(save, {"username": "dora", "role": "viewer", FORM_PROJECT: shown[0]})
    assert list(Membership.objects.filter(user__username="dora").values_list("project", flat=True)) == [project.pk]
    client_alice.get(reverse("overview"), {"project": other.pk})
    client_alice.post(save, {"username": "erin", "role": "", FORM_PROJECT: shown[0]})
    assert not Membership.objects.filter(user=erin).exists()


def test_the_first_pipeline_is_made_and_launched_in_the_project_of_the_page(
    client_alice: Client, project: Project, other: Project
) -> None:
    page = client_alice.get(reverse("overview"), {"project": project.pk}).content.decode()
    shown = hidden_projects(page, reverse("first-pipeline"))
    assert shown == [str(project.pk)]
    client_alice.get(reverse("overview"), {"project": other.pk})
    answer = client_alice.post(reverse("first-pipeline"), {FORM_PROJECT: shown[0]})
    assert Pipeline.objects.get().project == project
    launch = Launch.objects.get()
    assert answer["Location"] == reverse("launch-detail", args=[launch.pk]) and launch.state == LaunchState.RUNNING
    assert launch.runs.filter(state=RunState.QUEUED, dataset_version__isnull=False).exists()
    assert client_alice.get(answer["Location"]).status_code == 200


def test_the_only_owner_stays_and_the_sentence_is_no_field_of_the_other_form(client_alice: Client, project: Project) -> None:
    for role in ("viewer", ""):
        form = {"username": "alice", "role": role, FORM_PROJECT: project.pk}
        page = client_alice.post(reverse("member-save"), form, follow=True)
        assert [str(message) for message in page.context["messages"]] == [
            "alice is the only owner of “Sums”; make another owner first."
        ]
        assert not page.context["member_form"].is_bound
    assert Membership.objects.get(project=project, user__username="alice").role == Role.OWNER


@pytest.mark.parametrize("named", ["{theirs}", "999999", "x", "9" * 5000, "é", "elsewhere"])
def test_a_form_of_a_project_of_others_acts_on_none(client_alice: Client, charlie: User, named: str) -> None:
    theirs = Project.objects.get(slug="elsewhere")
    answer = client_alice.post(
        reverse("member-save"), {"username": "charlie", "role": "viewer", FORM_PROJECT: named.format(theirs=theirs.pk)}
    )
    assert answer.status_code == 403 and "not a member" in answer.content.decode()
    assert Membership.objects.filter(user=charlie).count() == 1


def test_a_member_who_was_removed_meanwhile_acts_on_nothing(
    client_erin: Client, alice: User, erin: User, project: Project
) -> None:
    own = project_create(user=erin, name="Her own")
    member_set(project=project, user=erin, role=None, by=alice)
    answer = client_erin.post(reverse("first-pipeline"), {FORM_PROJECT: project.pk})
    assert answer.status_code == 403 and not Pipeline.objects.exists()
    assert client_erin.get(reverse("overview")).context["project"] == own


def test_the_audit_page_is_for_owners_as_the_api_is(
    client_alice: Client, client_erin: Client, client_bob: Client, project: Project
) -> None:
    url = reverse("settings-audit")
    assert "project.create" in client_alice.get(url).content.decode()
    for client in (client_erin, client_bob):
        assert client.get(url).status_code == 403
        assert url not in client.get(reverse("settings-project")).content.decode()
        assert url not in client.get(reverse("palette")).content.decode()
    assert url in client_alice.get(reverse("settings-project")).content.decode()
    assert url in client_alice.get(reverse("palette")).content.decode()
    Membership.objects.filter(user__username="erin").update(role=Role.OWNER)
    assert client_erin.get(url).status_code == 200
