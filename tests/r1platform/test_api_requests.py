"""Narrow, conditional and repeated requests: laws that hold for every resource, tried on a few."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from r1platform.api import router
from r1platform.api_requests import Careful
from r1platform.idempotency import KEPT, request_keys_forget
from r1platform.keys import api_key_create
from r1platform.models import ApiKey, AuditEntry, Node, Project, RequestKey
from r1platform.services import project_create
from tests.pages.b_rows import make_run

PROJECTS = "/api/v1/projects/"


def test_no_resource_is_left_out() -> None:
    assert len(router.registry) > 15
    assert all(issubclass(viewset, Careful) for _, viewset, _ in router.registry)


@pytest.fixture
def key() -> dict[str, str]:
    return {"HTTP_IDEMPOTENCY_KEY": "8d0f1c52-made-once"}


def test_a_post_that_is_sent_twice_is_carried_out_once(api_alice: APIClient, project: Project, key: dict[str, str]) -> None:
    first = api_alice.post(PROJECTS, {"name": "Once"}, **key)
    again = api_alice.post(PROJECTS, {"name": "Once"}, **key)
    assert (first.status_code, again.status_code) == (201, 201) and first.json() == again.json()
    assert again["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first
    assert Project.objects.filter(name="Once").count() == 1
    assert AuditEntry.objects.filter(action="project.create").count() == 2, "the fixture's and this one"


def test_a_key_stands_for_one_request(api_alice: APIClient, api_erin: APIClient, alice: User, project: Project, key: dict[str, str]) -> None:
    api_alice.post(PROJECTS, {"name": "Once"}, **key)
    other = api_alice.post(PROJECTS, {"name": "Twice"}, **key)
    assert other.status_code == 422 and "another request" in other.json()["detail"]
    assert api_alice.post("/api/v1/datasets/", {"name": "Once", "project": project.pk}, **key).status_code == 422
    assert api_erin.post(PROJECTS, {"name": "Twice"}, **key).status_code == 201, "another user's key is another"
    second = APIClient()
    second.credentials(HTTP_AUTHORIZATION=f"Bearer {api_key_create(user=alice, name='b', scopes=['write'])[1]}")
    assert second.post(PROJECTS, {"name": "Twice"}, **key).status_code == 201, "so is another program's"


def test_a_refused_request_leaves_its_key_free(api_alice: APIClient, key: dict[str, str]) -> None:
    assert api_alice.post(PROJECTS, {"name": ""}, **key).status_code == 400
    assert not RequestKey.objects.exists()
    assert api_alice.post(PROJECTS, {"name": "Now"}, **key).status_code == 201


@pytest.mark.parametrize("text", ["", "a b", "é", "x" * 201])
def test_a_key_that_is_none_is_refused(api_alice: APIClient, text: str) -> None:
    answer = api_alice.post(PROJECTS, {"name": "x"}, HTTP_IDEMPOTENCY_KEY=text)
    assert answer.status_code == 400 and "Idempotency-Key" in answer.json()["errors"]


def test_a_secret_is_not_kept_for_the_second_answer(client_alice: Client, project: Project, key: dict[str, str]) -> None:
    body = {"name": "laptop", "scopes": ["read"]}
    first = client_alice.post("/api/v1/api-keys/", body, content_type="application/json", **key)
    again = client_alice.post("/api/v1/api-keys/", body, content_type="application/json", **key)
    assert (first.status_code, again.status_code) == (201, 409) and ApiKey.objects.count() == 1
    assert first.json()["key"] not in str(RequestKey.objects.values().get())


def test_what_has_no_role_claims_no_key(api_bob: APIClient, project: Project, key: dict[str, str]) -> None:
    run = make_run(project, state="running")
    assert api_bob.post(f"/api/v1/runs/{run.pk}/stop/", **key).status_code == 403
    assert not RequestKey.objects.exists()


def test_keys_are_forgotten_after_a_day(api_alice: APIClient, key: dict[str, str]) -> None:
    api_alice.post(PROJECTS, {"name": "Once"}, **key)
    assert request_keys_forget() == 0
    RequestKey.objects.update(created_at=Now() - KEPT)
    assert request_keys_forget() == 1


@pytest.mark.django_db(transaction=True)
def test_two_at_the_same_time_make_one(alice: User, project: Project) -> None:
    """The second waits for the first and reads its answer."""
    secret = api_key_create(user=alice, name="k", scopes=["write"])[1]
    answers: list[Any] = []
    start = threading.Barrier(4)

    def post() -> None:
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        start.wait()
        answers.append(client.post(PROJECTS, {"name": "Once"}, HTTP_IDEMPOTENCY_KEY="same"))
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.content for answer in answers}) == 1 and Project.objects.filter(name="Once").count() == 1


def test_what_has_not_changed_is_not_sent_again(api_alice: APIClient, project: Project, node: Node) -> None:
    for path in (PROJECTS, f"{PROJECTS}{project.pk}/", "/api/v1/nodes/", "/api/v1/phases/", "/api/v1/me/"):
        first = api_alice.get(path)
        again = api_alice.get(path, HTTP_IF_NONE_MATCH=f'"x", W/{first["ETag"]}')
        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
        assert again["ETag"] == first["ETag"] and "private" in first["Cache-Control"]
    api_alice.patch(f"{PROJECTS}{project.pk}/", {"description": "other"})
    assert api_alice.get(f"{PROJECTS}{project.pk}/", HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 200


def test_a_thing_is_changed_only_as_it_was_seen(api_alice: APIClient, api_bob: APIClient, api_charlie: APIClient, project: Project) -> None:
    url = f"{PROJECTS}{project.pk}/"
    seen = api_alice.get(url)["ETag"]
    assert api_alice.patch(url, {"description": "first"}, HTTP_IF_MATCH=seen).status_code == 200
    late = api_alice.patch(url, {"description": "second"}, HTTP_IF_MATCH=seen)
    assert late.status_code == 412 and "ETag" in late.json()["detail"]
    assert api_alice.get(url).json()["description"] == "first"
    assert api_alice.patch(url, {"description": "any"}, HTTP_IF_MATCH="*").status_code == 200
    assert api_alice.post(PROJECTS, {"name": "x"}, HTTP_IF_MATCH=seen).status_code == 412
    assert api_bob.patch(url, {"description": "x"}, HTTP_IF_MATCH="*").status_code == 403
    assert api_charlie.patch(url, {"description": "x"}, HTTP_IF_MATCH="*").status_code == 404


def test_an_action_too_is_done_only_as_the_run_was_seen(api_alice: APIClient, project: Project) -> None:
    run = make_run(project, state="queued")
    url = f"/api/v1/runs/{run.pk}/"
    seen = api_alice.get(url)["ETag"]
    api_alice.patch(url, {"notes": "hold on"})
    assert api_alice.post(f"{url}stop/", HTTP_IF_MATCH=seen).status_code == 412
    run.refresh_from_db()
    assert run.state == "queued"
    assert api_alice.post(f"{url}stop/", HTTP_IF_MATCH=api_alice.get(url)["ETag"]).status_code == 200


def test_fields_leave_the_rest_out(api_alice: APIClient, project: Project) -> None:
    run = make_run(project)
    assert api_alice.get(f"/api/v1/runs/{run.pk}/?fields=id,state").json() == {"id": run.pk, "state": run.state}
    listed = api_alice.get("/api/v1/runs/?fields=id").json()["results"]
    assert listed == [{"id": run.pk}]
    for path in ("/api/v1/runs/", "/api/v1/datasets/"):
        wrong = api_alice.get(f"{path}?fields=id,colour")
        assert wrong.status_code == 400 and "colour" in wrong.json()["errors"]["fields"][0], "also of an empty list"


def test_common_filters(api_alice: APIClient, alice: User, project: Project) -> None:
    second = project_create(user=alice, name="Long words of a project")
    names = lambda query: [row["name"] for row in api_alice.get(f"{PROJECTS}?{query}").json()["results"]]  # noqa: E731
    assert names("q=words+LONG") == [second.name] and names("q=nothing") == []
    assert names("created_after=2999-01-01") == [] and names("created_before=2999-01-01T00:00:00Z") != []
    assert names("ordering=-name") == ["Sums", second.name] and names("ordering=name") == [second.name, "Sums"]
    for query in ("created_after=soon", "ordering=state", "ordering=name,colour"):
        assert api_alice.get(f"{PROJECTS}?{query}").status_code == 400, query


def test_pages_follow_the_order_that_was_asked_for(api_alice: APIClient, alice: User, project: Project) -> None:
    for name in ("c", "a", "b"):
        project_create(user=alice, name=name)
    found, url = [], f"{PROJECTS}?ordering=-name&page_size=2"
    while url:
        answer = api_alice.get(url).json()
        found += [row["name"] for row in answer["results"]]
        url = answer["next"]
    assert found == sorted(found, reverse=True) and len(found) == 4


def test_runs_by_several_states_and_a_tag(api_alice: APIClient, project: Project) -> None:
    runs = {state: make_run(project, state=state) for state in ("queued", "running", "succeeded")}
    api_alice.patch(f"/api/v1/runs/{runs['queued'].pk}/", {"tags": ["baseline", "x"]})
    states = lambda query: {row["state"] for row in api_alice.get(f"/api/v1/runs/?{query}").json()["results"]}  # noqa: E731
    assert states("state=queued&state=running") == {"queued", "running"}
    assert states("tag=baseline") == {"queued"} and states("tag=base") == set()
    assert api_alice.get("/api/v1/runs/?state=flying").status_code == 400
