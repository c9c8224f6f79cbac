"""The REST resources of training: who may, what is refused at which field, and what a run's page reads."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, make_version, rundir_of, scalars, tell
from training_app.ingest import Ingest
from training_app.models import Checkpoint, Launch, PhaseRun, Pipeline

pytestmark = pytest.mark.django_db
API = "/api/v1"


@pytest.fixture
def run(project: Project, alice: User, node: Node) -> PhaseRun:
    """A run that told of three steps, one of them with rollouts."""
    made = make_run(project, alice, state="running")
    attempt = make_attempt(made, node)
    rundir = rundir_of(attempt)
    for step in (1, 2, 3):
        tell(rundir, step, "scalars", **scalars(step, loss=1 / step, kl=0.0))
    tell(rundir, 4, "rollouts", step=3, file="samples/step_00000003.jsonl.gz", num_groups=1, num_rollouts=1)
    group = {"prompt": "1+1=", "answer": "2", "task": "sums", "completions": [{"text": "<think>x</think>2", "correct": True}]}
    with gzip.open(rundir.samples / "step_00000003.jsonl.gz", "wt") as file:
        file.write(json.dumps(group) + "\n")
    tell(rundir, 5, "experts", step=3, layers=[[0.5, 0.5]], bias=[[0.0, 0.0]], max_violation=[0.0])
    tell(rundir, 6, "checkpoint", step=3, path="p", metrics={}, size_bytes=1, sha256="f" * 64, is_final=True)
    rundir.log.write_text("hello\nworld\n")
    while Ingest(attempt, rundir, fence=1).take():
        attempt.refresh_from_db()
    return made


def plan(version: int, **values: Any) -> dict[str, Any]:
    return {"name": "Tiny R1", "template": "article", "dataset_version": version, "seed": 1, **values}


def test_from_a_template_to_a_launch(api_alice: APIClient, project: Project) -> None:
    template = api_alice.get(f"{API}/pipeline-templates/article/").json()
    assert [phase["phase"] for phase in template["phases"]] == ["cold_start", "reinforcement", "rejection_sampling"]
    assert template["prepare"]["source"] == "generated"
    made = api_alice.post(f"{API}/pipelines/", plan(make_version(project).pk, project=project.pk))
    assert made.status_code == 201 and len(made.json()["phases"]) == 3
    launch = api_alice.post(f"{API}/pipelines/{made.json()['id']}/launch/")
    assert launch.status_code == 201
    assert [run["state"] for run in launch.json()["runs"]] == ["queued", "waiting", "waiting"]
    again = api_alice.post(f"{API}/pipelines/{made.json()['id']}/launch/")
    assert again.status_code == 409 and "stop it before" in again.json()["detail"]
    assert Launch.objects.count() == 1
    graph = api_alice.get(f"{API}/launches/{launch.json()['id']}/graph/").json()
    assert len(graph["nodes"]) == 3 and {edge["kind"] for edge in graph["edges"]} == {"starts_from", "rollouts_from"}
    stopped = api_alice.post(f"{API}/launches/{launch.json()['id']}/stop/")
    assert stopped.json()["state"] == "stopped"


def test_phase_by_phase(api_alice: APIClient, project: Project) -> None:
    phases = [{"phase": "cold_start", "name": "a"}, {"phase": "reinforcement", "name": "b", "starts_from": "a"}]
    version = make_version(project).pk
    made = api_alice.post(f"{API}/pipelines/", {"name": "P", "phases": phases, "dataset_version": version})
    assert made.status_code == 201
    assert {phase["dataset_version"] for phase in made.json()["phases"]} == {version}
    phase = made.json()["phases"][0]
    url = f"{API}/pipelines/{made.json()['id']}/phases/{phase['id']}/"
    changed = api_alice.patch(url, {"gate_metric": "accuracy", "gate_threshold": 0.5, "config": {"seed": 9}})
    assert changed.status_code == 200, changed.json()
    assert changed.json()["gate_threshold"] == 0.5 and changed.json()["dataset_version"] == version
    assert api_alice.patch(url, {"budget_fraction": 2}).status_code == 400


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"template": "magic"}, ""),
        ({"template": ""}, "template"),
        ({"dataset_version": 10**9}, "dataset_version"),
        ({"seed": -1}, "seed"),
        ({"project": "nowhere"}, "project"),
    ],
)
def test_a_wrong_body_makes_nothing(change: dict[str, Any], field: str, api_alice: APIClient, project: Project) -> None:
    answer = api_alice.post(f"{API}/pipelines/", plan(make_version(project).pk, **change))
    assert answer.status_code == 400, answer.json()
    assert answer["Content-Type"] == "application/problem+json"
    assert not field or field in answer.json()["errors"]
    assert not Pipeline.objects.exists()


def test_a_setting_that_does_not_exist_is_named(api_alice: APIClient, project: Project) -> None:
    body = {
        "name": "r",
        "phase": "cold_start",
        "dataset_version": make_version(project).pk,
        "config": {"phase_config": {"stepz": 1}},
    }
    answer = api_alice.post(f"{API}/runs/", body)
    assert answer.status_code == 400 and list(answer.json()["errors"]) == ["phase_config.stepz"]
    assert not PhaseRun.objects.exists()


def test_what_a_run_page_reads(api_bob: APIClient, run: PhaseRun) -> None:
    base = f"{API}/runs/{run.pk}"
    metrics = api_bob.get(f"{base}/metrics/", {"names": "loss", "from": 2}).json()
    (loss,) = metrics["series"]
    assert loss["x"] == [2, 3] and loss["last"] == [1 / 2, 1 / 3] and loss["tokens"] == [200, 300]
    events = api_bob.get(f"{base}/events/", {"kinds": "rollouts,experts"}).json()
    assert [event["kind"] for event in events["events"]] == ["rollouts", "experts"]
    assert api_bob.get(f"{base}/events/", {"after": events["last_id"]}).json()["events"][0]["kind"] == "checkpoint"
    assert metrics["last_event_id"] > events["last_id"]
    assert api_bob.get(f"{base}/rollouts/").json()["groups"][0]["prompt"] == "1+1="
    assert api_bob.get(f"{base}/experts/").json()["layers"] == [[0.5, 0.5]]
    log = api_bob.get(f"{base}/log/").json()
    assert log["text"] == "hello\nworld\n" and api_bob.get(f"{base}/log/", {"offset": log["next_offset"]}).json()["text"] == ""
    assert [c["step"] for c in api_bob.get(f"{base}/checkpoints/").json()] == [3]
    assert api_bob.get(f"{API}/checkpoints/", {"run": run.pk}).json()["results"][0]["is_final"]


@pytest.mark.parametrize(
    ("path", "query"),
    [("rollouts", {"step": 99}), ("rollouts", {"step": "x"}), ("experts", {"step": 99}), ("log", {"attempt": 7}),
     ("metrics", {"from": "a"}), ("events", {"after": "-1"})],
)  # fmt: skip
def test_a_wrong_question_is_a_400(path: str, query: dict[str, Any], api_bob: APIClient, run: PhaseRun) -> None:
    answer = api_bob.get(f"{API}/runs/{run.pk}/{path}/", query)
    assert answer.status_code == 400 and next(iter(query)) in answer.json()["errors"]


def test_steering(api_erin: APIClient, run: PhaseRun) -> None:
    base = f"{API}/runs/{run.pk}"
    assert api_erin.patch(f"{base}/", {"tags": ["a"], "notes": "n"}).json()["tags"] == ["a"]
    assert api_erin.post(f"{base}/clone/").status_code == 201
    answer = api_erin.post(f"{base}/pause/")
    assert answer.json()["state"] == "stopping" and answer.json()["desired"] == "pause"
    conflict = api_erin.post(f"{base}/retry/")
    assert conflict.status_code == 409 and "stopping" in conflict.json()["detail"]


@pytest.mark.parametrize("path", ["pipelines", "launches", "runs", "checkpoints"])
def test_lists_hold_what_is_ones_own(path: str, api_bob: APIClient, api_charlie: APIClient, run: PhaseRun, alice: User) -> None:
    pipeline = Pipeline.objects.create(project=run.project, name="P")
    Launch.objects.create(pipeline=pipeline, number=1)
    assert len(api_bob.get(f"{API}/{path}/").json()["results"]) == 1
    assert api_charlie.get(f"{API}/{path}/").json()["results"] == []
    row = api_bob.get(f"{API}/{path}/").json()["results"][0]["id"]
    assert api_bob.get(f"{API}/{path}/{row}/").status_code == 200
    assert api_charlie.get(f"{API}/{path}/{row}/").status_code == 404


def test_pages_of_a_list_are_stable_while_rows_are_added(api_bob: APIClient, project: Project, alice: User) -> None:
    first = [make_run(project, alice).pk for _ in range(5)]
    page = api_bob.get(f"{API}/runs/", {"page_size": 3}).json()
    make_run(project, alice)
    rest = api_bob.get(page["next"]).json()
    assert [row["id"] for row in page["results"] + rest["results"]] == first[::-1]


def test_schemas_describe_what_can_be_set(api_bob: APIClient) -> None:
    phases = {phase["name"]: phase for phase in api_bob.get(f"{API}/phases/").json()}
    assert phases["reinforcement"]["needs"]["start_from"] == "required"
    assert phases["cold_start"]["schema"]["properties"]["steps"]["description"]
    rewards = {reward["name"] for reward in api_bob.get(f"{API}/rewards/").json()}
    assert {"logical_consistency", "solution_accuracy", "reasoning_clarity", "efficiency"} <= rewards


def test_removed_checkpoints_can_be_left_out(api_bob: APIClient, run: PhaseRun) -> None:
    Checkpoint.objects.update(removed_at="2026-01-01T00:00Z")
    assert api_bob.get(f"{API}/checkpoints/", {"removed_at__isnull": True}).json()["results"] == []


def test_measurements_are_listed_with_what_was_measured(
    api_bob: APIClient, api_charlie: APIClient, project: Project, alice: User, node: Node
) -> None:
    run = make_run(project, alice, state="running")
    attempt = make_attempt(run, node)
    rundir = rundir_of(attempt)
    measured = {
        "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "quality": None, "quality_low": None,
        "quality_high": None, "num_problems": 8, "unscored": 8, "components": {}, "examples": [{"prompt": "1+1="}],
    }  # fmt: skip
    for seq, when in enumerate(("before", "during", "after"), 1):
        tell(rundir, seq, "evaluation", step=seq * 10, when=when, **measured)
    Ingest(attempt, rundir, fence=1).take()
    found = api_bob.get(f"{API}/measurements/", {"run": run.pk, "when": "after"}).json()["results"]
    assert [(row["run"], row["step"], row["accuracy"], row["quality"]) for row in found] == [(run.pk, 30, 0.5, None)]
    assert "examples" not in found[0]
    one = api_bob.get(f"{API}/measurements/{found[0]['id']}/").json()
    assert one["examples"] == [{"prompt": "1+1="}] and one["phase"] == "cold_start"
    assert api_bob.get(f"{API}/measurements/", {"when": "never"}).status_code == 400
    assert api_charlie.get(f"{API}/measurements/").json()["results"] == []
    assert api_charlie.get(f"{API}/measurements/{found[0]['id']}/").status_code == 404
