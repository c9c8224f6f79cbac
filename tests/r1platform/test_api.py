"""The API's ground: errors as problem details, paging, roles, and the plumbing's own resources."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from model_core.errors import ConfigError
from r1platform.lib.leases import NoDevice, leases_claim
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import AuditEntry, Node, Project
from r1platform.problems import CONTENT_TYPE, translate
from tests.r1platform.command_line import run


def test_errors_become_problem_details() -> None:
    assert translate(ConfigError("Too small.", field="model.layers")) == (400, "Too small.", {"model.layers": ["Too small."]})
    assert translate(IllegalTransition("Run", 3, "failed", "running"))[0] == 409  # type: ignore[index]
    assert translate(NoDevice("None is free."))[:2] == (409, "None is free.")  # type: ignore[index]
    assert translate(RuntimeError("a bug")) is None


@pytest.mark.parametrize("path", ["/api/v1/nothing/", "/v1/nothing", "/api/v1/projects/999999/", "/api/nothing"])
def test_unknown_addresses_answer_programs_in_their_language(api_alice: APIClient, path: str) -> None:
    answer = api_alice.get(path)
    assert answer.status_code == 404 and answer["Content-Type"].startswith((CONTENT_TYPE, "application/json"))
    assert set(answer.json()) & {"detail", "error"}


def test_a_bug_is_a_500_without_its_traceback(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from r1platform import selectors

    def broken(**_: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(selectors, "project_list", broken)
    client = Client(raise_request_exception=False)
    client.force_login(alice)
    answer = client.get("/api/v1/me/")
    assert answer.status_code == 500 and answer["Content-Type"] == CONTENT_TYPE
    assert b"secret" not in answer.content


def test_bad_input_is_a_400_at_its_field(api_alice: APIClient) -> None:
    answer = api_alice.post("/api/v1/projects/", {"name": "", "description": "x"})
    assert answer.status_code == 400 and "name" in answer.json()["errors"]
    for body in (b"{", b"[1]", b'"x"', b'{"name": "a\\u0000b"}', b"\xff\xfe", b'{"name": {"a": 1}}'):
        answer = api_alice.generic("POST", "/api/v1/projects/", body, content_type="application/json")
        assert answer.status_code == 400, (body, answer.content)
        assert answer["Content-Type"] == CONTENT_TYPE
    assert api_alice.get("/api/v1/projects/?page_size=%00").status_code == 400
    assert api_alice.get("/api/v1/projects/?cursor=rubbish").status_code == 404


def test_a_wrong_method_and_type_are_4xx(api_alice: APIClient, project: Project) -> None:
    assert api_alice.put(f"/api/v1/nodes/{project.pk}/", {}).status_code == 405
    assert api_alice.generic("POST", "/api/v1/projects/", b"<x/>", content_type="text/xml").status_code == 415


def test_lists_are_paged_by_cursor(api_alice: APIClient, alice: User) -> None:
    for number in range(5):
        api_alice.post("/api/v1/projects/", {"name": f"P{number}"})
    seen, url = [], "/api/v1/projects/?page_size=2"
    while url:
        page = api_alice.get(url).json()
        seen += [row["name"] for row in page["results"]]
        url = page["next"]
    assert seen == ["P4", "P3", "P2", "P1", "P0", "Sums"]


@pytest.mark.parametrize("position", ["p=abc", "p=a%00b", "p=", "p=" + "9" * 5000, "r=1&p=%F0%9F%98%80", "o=99999999999", "p=2026-99-99"])
@pytest.mark.parametrize("path", ["projects", "nodes", "devices", "audit", "runs", "datasets"])
def test_a_cursor_that_is_not_ours_is_a_404(api_alice: APIClient, project: Project, node: Node, path: str, position: str) -> None:
    cursor = b64encode(position.encode()).decode()
    answer = api_alice.get(f"/api/v1/{path}/", {"cursor": cursor})
    assert answer.status_code in {200, 404}, answer.content
    if position == "p=abc" and path in {"projects", "audit", "devices"}:
        assert answer.status_code == 404 and "cursor" in answer.json()["detail"]


@pytest.mark.parametrize("named", ["9" * 5000, "9" * 18, 10**400, "a\x00b", "\ud800", "x" * 5000, ["a"], {"a": 1}, 1.5, "é"])
def test_a_project_that_cannot_be_is_a_400_at_its_field(api_alice: APIClient, project: Project, named: Any) -> None:
    body = json.dumps({"project": named, "name": "x", "kind": "self"})
    answer = api_alice.generic("POST", "/api/v1/datasets/", body, content_type="application/json")
    assert answer.status_code == 400 and "project" in answer.json()["errors"]
    assert len(answer.content) < 1000


def test_an_id_names_a_project_before_a_slug_does(api_alice: APIClient, alice: User, project: Project) -> None:
    from r1platform.services import project_create

    project_create(user=alice, name=str(project.pk))
    made = api_alice.post("/api/v1/datasets/", {"project": project.pk, "name": "x", "kind": "self"})
    assert made.status_code == 201 and project.datasets.count() == 1


def test_projects_by_role(
    project: Project, api_alice: APIClient, api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient
) -> None:
    url = f"/api/v1/projects/{project.pk}/"
    for client, read, write in ((api_alice, 200, 200), (api_erin, 200, 403), (api_bob, 200, 403), (api_charlie, 404, 404)):
        assert client.get(url).status_code == read
        assert client.patch(url, {"description": "x"}).status_code == write
        assert client.get(url + "members/").status_code == read
        assert client.put(url + "members/", {"username": "erin", "role": "editor"}).status_code == write
    assert api_alice.get(url).json()["role"] == "owner"
    assert api_bob.get(url).json()["role"] == "viewer"


def test_members_come_and_go(project: Project, api_alice: APIClient, api_charlie: APIClient) -> None:
    url = f"/api/v1/projects/{project.pk}/"
    assert api_alice.put(url + "members/", {"username": "charlie", "role": "editor"}).json()["role"] == "editor"
    assert api_charlie.get(url).status_code == 200
    assert api_alice.put(url + "members/", {"username": "nobody-here", "role": "editor"}).status_code == 400
    assert api_alice.delete(url + "members/charlie/").status_code == 204
    assert api_charlie.get(url).status_code == 404
    assert api_alice.delete(url + "members/alice/").status_code == 400, "the last owner stays"
    assert AuditEntry.objects.filter(action="member.set").count() == 2


def test_nodes_are_seen_by_all_and_drained_by_administrators(node: Node, api_bob: APIClient, api_alice: APIClient, alice: User) -> None:
    leases_claim(holder="attempt:1", num=1)
    shown = api_bob.get(f"/api/v1/nodes/{node.pk}/").json()
    assert shown["is_up"] and [device["held_by"] for device in shown["devices"]] == ["attempt:1", None]
    assert [row["held_by"] for row in api_bob.get("/api/v1/devices/").json()["results"]] == ["attempt:1", None]
    assert api_alice.patch(f"/api/v1/nodes/{node.pk}/", {"draining": True}).status_code == 403
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    assert api_alice.patch(f"/api/v1/nodes/{node.pk}/", {"draining": True}).json()["draining"]
    Node.objects.update(heartbeat_at=Now())


def test_keys_are_made_in_a_session_and_shown_once(client_alice: Client, client_bob: Client, project: Project) -> None:
    body = {"name": "laptop", "scopes": ["read"], "project": project.slug}
    made = client_alice.post("/api/v1/api-keys/", body, content_type="application/json")
    assert made.status_code == 201 and made.json()["key"].startswith("r1_")
    row = client_alice.get("/api/v1/api-keys/").json()["results"][0]
    assert "key" not in row and row["project"] == project.slug
    assert client_bob.get(f"/api/v1/api-keys/{row['id']}/").status_code == 404
    assert client_bob.delete(f"/api/v1/api-keys/{row['id']}/").status_code == 404
    assert client_alice.delete(f"/api/v1/api-keys/{row['id']}/").status_code == 204
    assert client_alice.get(f"/api/v1/api-keys/{row['id']}/").json()["revoked_at"]
    for wrong in ({"name": "x", "scopes": ["root"]}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["read"], "project": "elsewhere"}):
        assert client_alice.post("/api/v1/api-keys/", wrong, content_type="application/json").status_code == 400


def test_a_session_needs_the_csrf_token(alice: User, project: Project) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post("/api/v1/projects/", {"name": "x"}, content_type="application/json")
    assert answer.status_code == 403 and "CSRF" in answer.json()["detail"]


def test_the_audit_is_for_owners(api_alice: APIClient, api_bob: APIClient, project: Project) -> None:
    assert [row["action"] for row in api_alice.get("/api/v1/audit/").json()["results"]] == ["project.create"]
    assert api_bob.get("/api/v1/audit/").json()["results"] == []


@pytest.mark.parametrize("path", ["projects", "nodes", "devices", "audit"])
def test_lists_cost_a_fixed_number_of_queries(
    api_alice: APIClient, alice: User, path: str, django_assert_max_num_queries: Any
) -> None:
    from r1platform.models import Device
    from r1platform.services import project_create

    for number in range(12):
        project_create(user=alice, name=f"P{number}")
        added = Node.objects.create(name=f"n{number}", heartbeat_at=Now())
        Device.objects.create(node=added, kind="cpu", index=0, name="x")
    api_alice.get(f"/api/v1/{path}/")
    with django_assert_max_num_queries(8):
        assert len(api_alice.get(f"/api/v1/{path}/").json()["results"]) >= 12


def test_the_schema_is_openapi_3_1_and_the_docs_need_no_network(client_alice: Client, api_alice: APIClient) -> None:
    schema = api_alice.get("/api/v1/schema/?format=json")
    assert schema.status_code == 200
    assert schema.json()["openapi"].startswith("3.1") and "/api/v1/projects/" in schema.json()["paths"]
    page = client_alice.get("/api/v1/docs/")
    assert page.status_code == 200
    assert b"https://" not in page.content and b"http://" not in page.content


def test_the_schema_names_its_choices_and_warns_of_nothing(tmp_path: Path) -> None:
    """In a process of its own: a warning is said once. One that names a view of an app is that app's to answer."""
    done = run("spectacular", "--file", str(tmp_path / "schema.yml"), home=tmp_path)
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if re.search(r"Warning( \[|:)", line) and "_app/" not in line]
    assert not said, done.stderr
    assert not re.findall(r"\b\w+[0-9A-F]{3}Enum:", (tmp_path / "schema.yml").read_text())
