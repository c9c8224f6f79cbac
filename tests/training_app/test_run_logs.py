"""The log of a run by the API: parts, search over ranks, the whole; who may read it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, rundir_of
from training_app.models import RunAttempt

pytestmark = pytest.mark.django_db
LOG = "".join(f"[rank {line % 2}] step {line}\n" for line in range(10)) + "Loss is NaN\n"


@pytest.fixture
def attempt(project: Project, alice: User, node: Node) -> RunAttempt:
    made = make_attempt(make_run(project, alice, state="running", num_processes=2), node)
    rundir_of(made).log.write_text(LOG)
    return made


def test_lines_of_a_rank_or_of_a_text(attempt: RunAttempt, api_bob: APIClient) -> None:
    path = f"/api/v1/runs/{attempt.run_id}/log/search/"
    assert [line["text"] for line in api_bob.get(path, {"q": "nan"}).json()["lines"]] == ["Loss is NaN"]
    assert api_bob.get(path, {"rank": 1}).json()["num_found"] == 5
    one = api_bob.get(path, {"rank": 1, "q": "STEP 3"}).json()["lines"]
    assert one == [{"offset": LOG.index("[rank 1] step 3"), "text": "[rank 1] step 3"}]
    assert api_bob.get(path, {"attempt": 7}).status_code == 400 and api_bob.get(path, {"rank": "x"}).status_code == 400


def test_parts_before_an_offset(attempt: RunAttempt, api_bob: APIClient) -> None:
    path = f"/api/v1/runs/{attempt.run_id}/log/"
    assert api_bob.get(path).json()["offset"] == 0
    assert api_bob.get(path, {"before": LOG.index("[rank 0] step 2")}).json()["text"] == "[rank 0] step 0\n[rank 1] step 1\n"


def test_who_may_read_and_what_is_not_there(
    attempt: RunAttempt, api_bob: APIClient, api_charlie: APIClient, api_anonymous: APIClient
) -> None:
    base = f"/api/v1/runs/{attempt.run_id}/log"
    whole = api_bob.get(f"{base}/download/")
    assert whole.status_code == 200 and int(whole["Content-Length"]) == len(LOG)
    for path in ("search", "download"):
        assert api_charlie.get(f"{base}/{path}/").status_code == 404 and api_anonymous.get(f"{base}/{path}/").status_code == 401
    rundir_of(attempt).log.unlink()
    assert api_bob.get(f"{base}/download/").status_code == 400 and api_bob.get(f"{base}/search/").json()["lines"] == []
