"""Projects are renamed and archived, people invited by link, the audit log narrowed: by owners only."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from r1platform.access import FORM_PROJECT, require_role, role_in
from r1platform.invitations import invitation_create, invitation_find, invitation_list, invitation_revoke, invitation_use
from r1platform.keys import api_key_create
from r1platform.models import AuditEntry, Invitation, Membership, Project, Role
from r1platform.services import member_set, project_archive, project_create, project_restore, project_update
from tests.pages.b_rows import make_run

PASSWORD = "correct horse battery"


def token_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


@pytest.fixture
def invited(project: Project, alice: User) -> str:
    """Token of an invitation as editor."""
    return token_of(invitation_create(project=project, by=alice, role=Role.EDITOR, note="Dora")[1])


def test_a_link_works_once(project: Project, invited: str, charlie: User, db: None) -> None:
    dora = User.objects.create_user("dora")
    assert invitation_use(token=invited, user=charlie) == project and role_in(charlie, project) == Role.EDITOR
    assert invitation_use(token=invited, user=dora) is None and role_in(dora, project) is None
    assert invited not in str(list(Invitation.objects.values())), "only a hash is kept"
    actions = list(AuditEntry.objects.filter(project=project).order_by("pk").values_list("action", flat=True))
    assert actions == ["project.create", "invitation.create", "invitation.use"]


def test_a_link_dies_of_age_of_its_end_and_with_its_makers_power(project: Project, alice: User, erin: User, charlie: User) -> None:
    def made() -> tuple[Invitation, str]:
        one, path = invitation_create(project=project, by=alice, role=Role.VIEWER)
        return one, token_of(path)

    one, token = made()
    Invitation.objects.filter(pk=one.pk).update(expires_at=Now() - timedelta(seconds=1))
    assert invitation_use(token=token, user=charlie) is None
    one, token = made()
    assert invitation_revoke(invitation=one, by=alice) and not invitation_revoke(invitation=one, by=alice)
    assert invitation_use(token=token, user=charlie) is None
    one, token = made()
    assert list(invitation_list(project=project)) == [one]
    member_set(project=project, user=erin, role=Role.OWNER, by=alice)
    member_set(project=project, user=alice, role=Role.EDITOR, by=erin)
    assert invitation_find(token=token) is None and not invitation_list(project=project)
    for wrong in ("", "x", token[:-1], "\ud800"):
        assert invitation_find(token=wrong) is None


def test_a_link_lowers_no_role(project: Project, alice: User, invited: str) -> None:
    invitation_use(token=invited, user=alice)
    assert role_in(alice, project) == Role.OWNER


def test_impossible_lifetimes_are_refused(project: Project, alice: User) -> None:
    with pytest.raises(ValidationError, match="1, 7, 30"):
        invitation_create(project=project, by=alice, role=Role.VIEWER, days=3650)


def test_who_has_an_account_joins_with_one_button(client_charlie: Client, charlie: User, project: Project, invited: str) -> None:
    url = reverse("invitation", args=[invited])
    page = client_charlie.get(url).content.decode()
    assert "alice invites you as editor" in page and "Join as charlie" in page
    assert role_in(charlie, project) is None, "looking uses nothing up"
    answer = client_charlie.post(url, follow=True)
    assert answer.status_code == 200 and "Sums" in answer.content.decode() and role_in(charlie, project) == Role.EDITOR
    assert client_charlie.get(url).status_code == 404


def test_who_has_none_makes_one(project: Project, invited: str) -> None:
    client, url = Client(), reverse("invitation", args=[invited])
    for name, password, says in (("alice", PASSWORD, "has this name"), ("ALICE", PASSWORD, "has this name"),
                                 ("dora", "12345678", "password"), ("do ra", PASSWORD, "username")):  # fmt: skip
        answer = client.post(url, {"username": name, "password": password})
        assert answer.status_code == 422 and says in answer.content.decode(), name
    assert not User.objects.filter(username="dora").exists() and invitation_find(token=invited)
    answer = client.post(url, {"username": "dora", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, reverse("overview"))
    dora = User.objects.get(username="dora")
    assert role_in(dora, project) == Role.EDITOR and not dora.is_staff and dora.check_password(PASSWORD)
    assert client.get(reverse("overview")).status_code == 200
    assert Client().post(url, {"username": "eve", "password": PASSWORD}).status_code == 404
    assert not User.objects.filter(username="eve").exists()


def test_guessing_names_by_a_link_is_slowed(invited: str) -> None:
    client, url = Client(), reverse("invitation", args=[invited])
    codes = {client.post(url, {"username": "alice", "password": PASSWORD}, REMOTE_ADDR="10.9.9.9").status_code for _ in range(21)}
    assert codes == {422, 429}


def test_an_owner_makes_shows_and_ends_links_on_the_page(client_alice: Client, project: Project) -> None:
    form = {"role": "viewer", "days": "7", "note": "for Dora", FORM_PROJECT: project.pk}
    shown = client_alice.post(reverse("invitation-new"), form, follow=True).content.decode()
    link = re.search(r"http://testserver(/invitations/[\w-]+/)", shown)
    assert link and "for Dora" in shown and invitation_find(token=token_of(link[1]))
    again = client_alice.get(reverse("settings-project")).content.decode()
    assert link[1] not in again and "for Dora" in again, "the link is shown once"
    client_alice.post(reverse("invitation-end", args=[Invitation.objects.get().pk]), {FORM_PROJECT: project.pk})
    assert invitation_find(token=token_of(link[1])) is None
    refused = client_alice.post(reverse("invitation-new"), {**form, "days": "9999"}, follow=True)
    assert "No link was made" in refused.content.decode()


def test_the_api_of_invitations_by_role(
    project: Project, api_alice: APIClient, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    url = f"/api/v1/projects/{project.pk}/invitations/"
    for client, code in ((api_erin, 403), (api_bob, 403), (api_charlie, 404), (api_anonymous, 401)):
        assert client.get(url).status_code == code and client.post(url, {"role": "viewer"}).status_code == code
    made = api_alice.post(url, {"role": "viewer", "note": "Charlie"})
    assert made.status_code == 201 and [row["id"] for row in api_alice.get(url).json()] == [made.json()["id"]]
    assert "url" not in api_alice.get(url).json()[0]
    joined = api_charlie.post("/api/v1/projects/join/", {"token": token_of(made.json()["url"])})
    assert joined.status_code == 200 and joined.json()["role"] == "viewer"
    spent = api_charlie.post("/api/v1/projects/join/", {"token": token_of(made.json()["url"])})
    assert spent.status_code == 400 and "token" in spent.json()["errors"]
    other = api_alice.post(url, {}).json()
    assert api_bob.delete(f"{url}{other['id']}/").status_code == 403
    assert api_alice.delete(f"{url}{other['id']}/").status_code == 204
    assert api_alice.delete(f"{url}{other['id']}/").status_code == 404
    assert api_alice.post(url, {"days": 8}).status_code == 400


def test_a_bound_key_joins_nothing(project: Project, invited: str, charlie: User) -> None:
    own = Project.objects.get(slug="elsewhere")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {api_key_create(user=charlie, name='b', scopes=['write'], project=own)[1]}")
    assert client.post("/api/v1/projects/join/", {"token": invited}).status_code == 403
    assert role_in(charlie, project) is None


def test_a_project_is_renamed_and_its_short_name_stays(project: Project, alice: User, client_alice: Client) -> None:
    client_alice.post(reverse("project-save"), {"name": " Better sums ", "description": "why", FORM_PROJECT: project.pk})
    project.refresh_from_db()
    assert (project.name, project.slug, project.description) == ("Better sums", "sums", "why")
    assert AuditEntry.objects.get(action="project.update").detail == {"name": "Better sums", "description": "why"}
    project_update(project=project, by=alice, name="Better sums")
    assert AuditEntry.objects.filter(action="project.update").count() == 1, "nothing changed"
    answer = client_alice.post(reverse("project-save"), {"name": " ", FORM_PROJECT: project.pk}, follow=True)
    assert "1 to 80 characters" in answer.content.decode()


def test_an_archived_project_can_only_be_looked_at(project: Project, alice: User, erin: User, api_alice: APIClient, client_alice: Client) -> None:
    run = make_run(project, state="queued")
    assert project_archive(project=project, by=alice) and not project_archive(project=project, by=alice)
    project.refresh_from_db()
    require_role(erin, project, Role.VIEWER)
    with pytest.raises(PermissionDenied, match="archived"):
        require_role(erin, project, Role.EDITOR)
    assert api_alice.get(f"/api/v1/runs/{run.pk}/").status_code == 200
    assert api_alice.post(f"/api/v1/runs/{run.pk}/stop/").status_code == 403
    refused = api_alice.post("/api/v1/datasets/", {"project": project.slug, "name": "x"})
    assert refused.status_code == 403 and "archived" in refused.json()["detail"]
    assert api_alice.post("/api/v1/datasets/", {"name": "x"}).status_code == 400, "it is not meant when none is named"
    page = client_alice.get(reverse("run-detail", args=[run.pk])).content.decode()
    assert "is archived" in page and "Bring it back" not in page
    assert client_alice.post(reverse("member-save"), {"username": "erin", "role": "viewer", FORM_PROJECT: project.pk}).status_code == 302
    assert Membership.objects.get(user=erin).role == Role.VIEWER, "who may look is still the owners' to say"
    client_alice.post(reverse("project-archive"), {"restore": "1", FORM_PROJECT: project.pk})
    project.refresh_from_db()
    assert project.archived_at is None and not project_restore(project=project, by=alice)


def test_an_archived_project_leaves_the_switch(client_alice: Client, project: Project, alice: User) -> None:
    other = project_create(user=alice, name="Other")
    project_archive(project=other, by=alice)
    assert ">Other<" not in client_alice.get(reverse("overview")).content.decode()
    assert ">Other<" in client_alice.get(reverse("overview"), {"project": other.pk}).content.decode(), "while it is shown"


def test_archive_by_api_and_role(project: Project, api_alice: APIClient, api_erin: APIClient, api_charlie: APIClient) -> None:
    url = f"/api/v1/projects/{project.pk}/"
    for client, code in ((api_erin, 403), (api_charlie, 404)):
        assert client.post(f"{url}archive/").status_code == code == client.post(f"{url}restore/").status_code
    assert api_alice.post(f"{url}archive/").json()["archived_at"] is not None
    assert api_alice.get("/api/v1/projects/?archived_at__isnull=true").json()["results"] == []
    assert api_alice.post(f"{url}restore/").json()["archived_at"] is None


def test_the_audit_is_narrowed(client_alice: Client, api_alice: APIClient, project: Project, alice: User, erin: User) -> None:
    member_set(project=project, user=erin, role=Role.VIEWER, by=alice)
    url = reverse("settings-audit")

    def shown(**query: str) -> set[str]:
        return {entry.action for entry in client_alice.get(url, query).context["page"]}

    assert shown() == {"project.create", "member.set"}
    assert shown(kind="member") == {"member.set"} == shown(q="viewer") and shown(user="erin") == set()
    assert shown(until="2000-01-01") == set() and shown(since="2000-01-01", user="alice") == shown()
    assert client_alice.get(url, {"since": "soon"}).status_code == 422
    api = lambda query: [row["action"] for row in api_alice.get(f"/api/v1/audit/?{query}").json()["results"]]  # noqa: E731
    assert api("action__startswith=member.") == ["member.set"] and api("user__username=erin") == []
    assert api("created_before=2000-01-01") == []
