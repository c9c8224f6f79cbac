"""Evaluations by the real process: asked, followed, stopped, gone on with, adopted; refused at the right field; who may what."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from rest_framework.test import APIClient

from model_core.errors import ModelCoreError
from r1platform.lib.leases import leases_claim
from r1platform.models import DeviceLease, Node, Project
from tests.training_app.rows import make_attempt, make_run, put_checkpoint, rundir_of
from tests.training_app.test_supervisor import until
from training_app import evaluating, selectors, services
from training_app.endpoints import endpoint_checked
from training_app.evaluation_command import environment_of
from training_app.evaluation_dir import EvaluationDir
from training_app.evaluation_supervisor import EvaluationSupervisor
from training_app.models import Checkpoint, Evaluation

API = "/api/v1"
ROWS = b"".join(b'{"question": "What is %d + 1?", "answer": "#### %d"}\n' % (n, n + 1) for n in range(6))


class Model:
    """An OpenAI-compatible endpoint on this machine that adds one, except in the rows where it errs."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        self.num_asked = 0
        self.go = threading.Event()
        self.go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say({"data": [{"id": "tiny"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.keys.append(self.headers["authorization"])
                outer.num_asked += 1
                number = int(body["messages"][0]["content"].split()[2])
                if number > 1:
                    outer.go.wait(20)
                text = f"<think>{number} and one</think>It is \\boxed{{{number + 1 if number else 99}}}."
                self.say({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

            def say(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def model(settings: Any) -> Iterator[Model]:
    made = Model()
    settings.R1_EVALUATION_ENDPOINTS = [made.url]
    yield made
    made.go.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def gsm8k(project: Project, alice: User) -> None:
    file = SimpleUploadedFile("test.jsonl", ROWS)
    services.upload_create(project=project, user=alice, file_name="test.jsonl", file=file, benchmark="gsm8k")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, node: Node, settings: Any) -> Iterator[Callable[[], list[threading.Thread]]]:
    """Starts what is queued, each supervisor in a thread."""
    settings.R1_NODE_NAME = node.name
    monkeypatch.setattr("training_app.evaluation_supervisor.BEAT_SECONDS", 0.02)
    threads: list[threading.Thread] = []

    def spawn(evaluation: Evaluation) -> None:
        def work() -> None:
            EvaluationSupervisor(evaluation.pk).run()
            connection.close()

        threads.append(threading.Thread(target=work))

    monkeypatch.setattr(evaluating, "_spawn_supervisor", spawn)

    def go() -> list[threading.Thread]:
        evaluating.evaluations_start()
        evaluating.evaluations_reconcile()
        started = [thread for thread in threads if not thread.ident]
        for thread in started:
            thread.start()
        return started

    yield go
    for thread in threads:
        thread.join(30)


def make(project: Project, user: User, model: Model, **values: Any) -> Evaluation:
    given = {"benchmark": "gsm8k", "endpoint": model.url, "config": {"num_samples": 2}, **values}
    return services.evaluation_create(project=project, user=user, **given)


def checkpoint_on(node: Node, project: Project, user: User) -> Checkpoint:
    """One that is complete on this machine and holds nothing."""
    run = make_run(project, user, state="succeeded")
    attempt = make_attempt(run, node, state="succeeded")
    put_checkpoint(rundir_of(attempt), 3)
    return Checkpoint.objects.create(run=run, attempt=attempt, step=3, is_final=True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("gsm8k")
def test_an_endpoint_is_stopped_in_the_middle_and_goes_on_where_it_was(
    project: Project, alice: User, model: Model, ask: Callable[[], list[threading.Thread]]
) -> None:
    """Stopped, resumed, done: nothing is asked twice that was kept, every sample is judged, and the key is gone."""
    model.go.clear()
    evaluation = make(project, alice, model, endpoint_key="sk-1")
    (work,) = ask()
    until(lambda: Evaluation.objects.get(pk=evaluation.pk).num_done == 2)
    services.evaluation_stop(evaluation=evaluation, user=alice)
    work.join(30)
    evaluation.refresh_from_db()
    assert (evaluation.state, evaluation.endpoint_key, evaluation.num_problems) == ("stopped", "", 6)
    model.go.set()
    asked = model.num_asked
    services.evaluation_resume(evaluation=evaluation, user=alice, endpoint_key="sk-2")
    (work,) = ask()
    work.join(60)
    evaluation.refresh_from_db()
    assert evaluation.state == "succeeded", evaluation.state_reason
    assert model.num_asked - asked == 8, "four problems of two samples were missing"
    assert set(model.keys) == {"Bearer sk-1", "Bearer sk-2"} and evaluation.endpoint_key == ""
    result = evaluation.result
    assert result is not None and result["accuracy"] == evaluation.accuracy == pytest.approx(5 / 6)
    assert result["pass_at_k"].keys() == {"1", "2"} and result["majority"]["k"] == 2 and "problems" not in result
    assert len(result["extractor"]["sha256"]) == 64
    wrong = selectors.evaluation_problems(evaluation, verdict="wrong").get()
    shown = selectors.evaluation_problem(evaluation, wrong.row)
    assert shown is not None and shown["expected"] == "1" and shown["answer"] == "99"
    assert [sample["completion"] for sample in shown["samples"]] == ["<think>0 and one</think>It is \\boxed{99}."] * 2
    assert [move.after for move in evaluation.transitions.all()] == ["running", "stopped", "queued", "running", "succeeded"]
    matrix = selectors.evaluation_matrix(user=alice, project=project)
    assert matrix["columns"] == ["GSM8K"] and matrix["rows"][0].cells[0]["evaluation"] == evaluation.pk
    figures = [(row.label, row.cells[0][0]["value"]) for row in matrix["references"] if "article" in row.source]
    assert figures == [("DeepSeek-R1", pytest.approx(0.827)), ("GPT-4", pytest.approx(0.855))]
    assert selectors.changed_settings(evaluation) == ["num samples 2 instead of 4"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("gsm8k")
def test_a_process_goes_on_under_another_supervisor(
    project: Project, alice: User, model: Model, ask: Callable[[], list[threading.Thread]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor dies: the next one adopts the very same process."""
    model.go.clear()
    evaluation = make(project, alice, model)
    with monkeypatch.context() as patch:
        patch.setattr(EvaluationSupervisor, "_follow", lambda self, ref: False)
        patch.setattr("training_app.evaluation_supervisor.evaluation_end", lambda *_args: True)
        ask()[0].join(30)
    evaluation.refresh_from_db()
    first = evaluation.child_pid
    assert evaluation.state == "running" and first is not None
    Evaluation.objects.filter(pk=evaluation.pk).update(heartbeat_at="2026-01-01T00:00Z")
    (work,) = ask()
    until(lambda: Evaluation.objects.get(pk=evaluation.pk).num_done == 2)
    assert Evaluation.objects.get(pk=evaluation.pk).child_pid == first
    model.go.set()
    work.join(60)
    evaluation.refresh_from_db()
    assert evaluation.state == "succeeded", evaluation.state_reason


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("gsm8k")
def test_a_killed_process_is_begun_again_and_a_node_that_goes_down_queues(
    project: Project, alice: User, model: Model, ask: Callable[[], list[threading.Thread]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model.go.clear()
    evaluation = make(project, alice, model, config={"num_samples": 1})
    (work,) = ask()
    until(lambda: Evaluation.objects.get(pk=evaluation.pk).num_done == 2)
    os.kill(Evaluation.objects.get(pk=evaluation.pk).child_pid or 0, signal.SIGKILL)
    until(lambda: model.num_asked > 6, seconds=30)
    monkeypatch.setattr(evaluating, "is_supervised", lambda _evaluation: work.is_alive())
    assert evaluating.evaluations_release()
    work.join(30)
    evaluation.refresh_from_db()
    assert evaluation.state == "queued" and "shut down" in evaluation.state_reason


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("gsm8k")
def test_what_the_process_refuses_is_said_once_and_its_device_is_free(
    project: Project, alice: User, node: Node, ask: Callable[[], list[threading.Thread]]
) -> None:
    """A checkpoint that holds nothing: one try, the sentence, no lease."""
    evaluation = services.evaluation_create(
        project=project, user=alice, benchmark="gsm8k", checkpoint=checkpoint_on(node, project, alice)
    )
    ask()[0].join(90)
    evaluation.refresh_from_db()
    assert evaluation.state == "failed" and "step_00000003" in evaluation.state_reason
    assert "Traceback" not in evaluation.state_reason and evaluation.device_seconds > 0
    assert not DeviceLease.objects.filter(released_at=None).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("gsm8k")
def test_a_checkpoint_waits_for_a_device_and_behind_runs(project: Project, alice: User, node: Node, settings: Any) -> None:
    settings.R1_NODE_NAME = node.name
    leases_claim(holder="attempt:1", num=2)
    evaluation = services.evaluation_create(
        project=project, user=alice, benchmark="gsm8k", checkpoint=checkpoint_on(node, project, alice)
    )
    assert evaluating.evaluations_start() == 0
    evaluation.refresh_from_db()
    assert "attempt:1" in evaluation.waiting_reason
    older = make_run(project, alice)
    type(older).objects.filter(pk=older.pk).update(created_at="2026-01-01T00:00Z")
    evaluating.evaluations_start()
    evaluation.refresh_from_db()
    assert evaluation.waiting_reason == f"Waits behind run {older.pk}, which is before it in the queue."


@pytest.mark.django_db
@pytest.mark.usefixtures("gsm8k")
def test_a_dead_node_loses_it_and_what_has_ended_frees_its_device(project: Project, alice: User, node: Node, settings: Any) -> None:
    settings.R1_NODE_NAME = node.name
    away = Node.objects.create(name="away", heartbeat_at="2026-01-01T00:00Z")
    evaluation = services.evaluation_create(
        project=project, user=alice, benchmark="gsm8k", checkpoint=checkpoint_on(node, project, alice)
    )
    Evaluation.objects.filter(pk=evaluation.pk).update(state="running", node=away, number=1, heartbeat_at="2026-01-01T00:00Z")
    evaluation.refresh_from_db()
    leases_claim(holder=evaluating.holder_of(evaluation), num=1, node=node)
    assert evaluating.evaluations_reconcile() == 2
    evaluation.refresh_from_db()
    assert evaluation.state == "lost" and not DeviceLease.objects.filter(released_at=None).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("gsm8k")
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"benchmark": "gsm9k"}, "benchmark"),
        ({"benchmark": "math500"}, "data"),
        ({"config": {"temperature": 3}}, "config.temperature"),
        ({"config": {"prompt": "hello"}}, "config.prompt"),
        ({"limit": 0}, "limit"),
        ({"seed": -1}, "seed"),
        ({"endpoint": ""}, "checkpoint"),
        ({"endpoint": "ftp://example.com"}, "endpoint"),
        ({"benchmark": "task", "data": "summs"}, "data"),
        ({"benchmark": "task", "data": "sums", "task_config": {"x": 1}}, "task_config.x"),
        ({"benchmark": "custom", "data": "gsm8k", "config": {"answer_field": "solution"}}, "data"),
    ],
)  # fmt: skip
def test_a_wrong_evaluation_is_refused_at_its_field(values: dict[str, Any], field: str, project: Project, alice: User) -> None:
    given = {"benchmark": "gsm8k", "endpoint": "https://api.example.com/v1", **values}
    with pytest.raises(ModelCoreError) as refused:
        services.evaluation_create(project=project, user=alice, **given)
    assert refused.value.field == field and not Evaluation.objects.exists()


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("https://api.example.com/v1", True), ("https://8.8.8.8/v1", True), ("http://10.0.0.5:8000/v1", True),
        ("http://10.0.0.5:8001/v1", False), ("http://api.example.com/v1", False), ("https://127.0.0.1/v1", False),
        ("https://169.254.169.254/latest", False), ("https://[::1]/v1", False), ("https://localhost/v1", False),
        ("https://metadata.google.internal", False), ("https://me:secret@api.example.com", False), ("file:///etc/passwd", False),
        ("https://api.example.com/v1?x=1", False), ("https://", False), ("https://example.com,localhost/v1", False),
    ],
)  # fmt: skip
def test_only_public_and_listed_addresses_are_asked(address: str, is_allowed: bool, settings: Any) -> None:
    settings.R1_EVALUATION_ENDPOINTS = ["http://10.0.0.5:8000"]
    if is_allowed:
        assert endpoint_checked(f"{address}/") == address
        return
    with pytest.raises(ModelCoreError) as refused:
        endpoint_checked(address)
    assert refused.value.field == "endpoint"


def test_the_process_reaches_only_its_host_with_only_its_key(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A name may lead to an inner address: so it counts with public ones only. The operator's own key is never sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "of the operator")
    settings.R1_EVALUATION_ENDPOINTS = ["http://10.0.0.5:8000"]
    for address, hosts in (("https://api.example.com/v1", "public:api.example.com"), ("http://10.0.0.5:8000/v1", "10.0.0.5")):
        evaluation = Evaluation(pk=1, endpoint=address, benchmark="gsm8k")
        made = environment_of(evaluation, EvaluationDir(1), gpus=[])
        assert made["MODEL_CORE_HOSTS"] == hosts and made["OPENAI_API_KEY"] == "" and made["NO_PROXY"] == "*"


@pytest.mark.django_db
@pytest.mark.usefixtures("gsm8k")
def test_through_the_api(
    api_erin: APIClient, api_bob: APIClient, api_charlie: APIClient, project: Project, django_assert_max_num_queries: Any
) -> None:
    body = {"benchmark": "gsm8k", "endpoint": "https://api.example.com/v1", "endpoint_key": "sk-secret", "limit": 3}
    assert api_bob.post(f"{API}/evaluations/", body, format="json").status_code == 403
    assert api_charlie.post(f"{API}/evaluations/", {**body, "project": project.slug}, format="json").status_code == 400
    made = api_erin.post(f"{API}/evaluations/", body, format="json")
    assert made.status_code == 201 and made.json()["state"] == "queued" and "sk-secret" not in made.content.decode()
    row = f"{API}/evaluations/{made.json()['id']}/"
    assert api_bob.get(row).json()["changed"] == ["only the first 3 problems"] and api_charlie.get(row).status_code == 404
    assert api_bob.post(f"{row}stop/").status_code == 403 and api_charlie.post(f"{row}stop/").status_code == 404
    assert api_erin.delete(row).status_code == 409
    assert api_erin.post(f"{row}stop/").json()["state"] == "stopped" and api_erin.post(f"{row}stop/").status_code == 409
    assert not Evaluation.objects.exclude(endpoint_key="").exists()
    assert api_erin.post(f"{row}resume/", {"endpoint_key": "sk-2"}, format="json").json()["state"] == "queued"
    assert api_bob.get(f"{row}problems/").json()["results"] == [] and api_bob.get(f"{row}problems/1/").status_code == 404
    assert api_bob.get(f"{row}problems/", {"verdict": "odd"}).status_code == 400
    assert api_bob.get(f"{API}/evaluations/matrix/").json()["rows"] == []
    assert {one["name"] for one in api_bob.get(f"{API}/benchmarks/").json()} >= {"gsm8k", "math500", "task"}
    for _more in range(3):
        api_erin.post(f"{API}/evaluations/", body, format="json")
    with django_assert_max_num_queries(6):
        assert len(api_bob.get(f"{API}/evaluations/").json()["results"]) == 4
    api_erin.post(f"{row}stop/")
    assert api_erin.delete(row).status_code == 204 and api_bob.get(row).status_code == 404
