"""Benchmarks of deployments against engines whose pace is known: the figures, what ends one early, who may start one."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.test import Client
from rest_framework.test import APIClient

from model_core.errors import ModelCoreError
from r1platform.lib.processes import started_at
from r1platform.lib.storage import version_dir
from r1platform.models import AuditEntry, Node, Project
from serving_app import benchmark_runner, benchmarking, services
from serving_app.benchmark_plan import BenchmarkPlan, made_prompt, words_for
from serving_app.benchmark_runner import BenchmarkRunner
from serving_app.models import Deployment, DeploymentBenchmark, Replica, UsageRecord
from serving_app.sleeping import sleep_step
from tests.pages.b_rows import make_benchmark
from tests.serving_app.conftest import reconciled, until
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_sleeping import quiet
from tests.training_app.rows import make_version
from training_app.models import DatasetVersion

pytestmark = pytest.mark.django_db(transaction=True)
WAIT, PAUSE, TOKENS = 0.1, 0.02, 5
Versions = Callable[..., DatasetVersion]


@pytest.fixture
def version(project: Project) -> Versions:
    def make(*prompts: str) -> DatasetVersion:
        made = make_version(project, num_held_out=len(prompts))
        data = version_dir(made.pk) / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "held_out.jsonl").write_text("".join(f"{json.dumps({'prompt': prompt})}\n" for prompt in prompts))
        return made

    return make


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, node: Node, settings: Any) -> Iterator[Callable[[], list[threading.Thread]]]:
    """Starts what is queued, each in a thread for a process."""
    settings.R1_NODE_NAME = node.name
    monkeypatch.setattr(benchmark_runner, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(benchmark_runner, "FALL_SECONDS", 0.3)
    threads: list[threading.Thread] = []

    def work(pk: int) -> None:
        BenchmarkRunner(pk).run()
        connection.close()

    def spawn(benchmark: DeploymentBenchmark) -> None:
        threads.append(threading.Thread(target=work, args=(benchmark.pk,)))

    monkeypatch.setattr(benchmarking, "_spawn", spawn)

    def go() -> list[threading.Thread]:
        benchmarking.benchmarks_start()
        begun = [thread for thread in threads if not thread.ident]
        for thread in begun:
            thread.start()
        return begun

    yield go
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def make(deployment: Deployment, user: User, version: DatasetVersion | None = None, **plan: Any) -> DeploymentBenchmark:
    given = {"concurrency": [1, 4], "num_requests": 4, "answer_tokens": 64, **plan}
    return services.benchmark_create(revision=deployment.revisions.get(), user=user, plan=given, dataset_version=version)


def test_figures_are_those_of_the_engine(
    deployment: Deployment, engine: Engine, alice: User, version: Versions, begin: Any, node: Node, client_bob: Client
) -> None:
    """Every token is counted, every delay of the engine seen, and nobody's usage has any of it."""
    benchmark = make(deployment, alice, version(f"late {WAIT} {TOKENS} {PAUSE}"))
    (work,) = begin()
    work.join(30)
    benchmark.refresh_from_db()
    assert (benchmark.state, benchmark.num_done, benchmark.num_planned, benchmark.level_now) == ("succeeded", 8, 8, 0)
    one, four = benchmark.levels.all()
    for level in (one, four):
        assert (level.num_ok, level.num_errors, level.num_cut, level.num_others) == (4, 0, 0, 0)
        assert (level.completion_tokens, level.prompt_tokens) == (4 * TOKENS, 4 * 7)
        assert level.tokens_per_second == pytest.approx(4 * TOKENS / level.seconds)
        assert level.requests_per_second == pytest.approx(4 / level.seconds)
        assert WAIT <= level.ttft_seconds["p50"] < WAIT + 0.1 and PAUSE * 0.9 <= level.itl_seconds["p50"] < PAUSE + 0.03
        assert level.e2e_seconds["p50"] >= WAIT + TOKENS * PAUSE
        for spread in (level.ttft_seconds, level.itl_seconds, level.e2e_seconds):
            assert spread["p50"] <= spread["p90"] <= spread["p99"]
    assert one.seconds >= 4 * (WAIT + TOKENS * PAUSE) and four.tokens_per_second > 2 * one.tokens_per_second
    assert benchmark.hardware["replicas"] == [{"number": 1, "node": node.name, "devices": []}]
    assert benchmark.hardware["nodes"] == {node.name: {"num_cpus": 2}} and benchmark.node == node
    assert all(body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True} for body in engine.bodies)
    assert [body["max_tokens"] for body in engine.bodies] == [1] + [64] * 8 and not UsageRecord.objects.exists()
    rows = list(csv.DictReader(client_bob.get(f"/deployments/{deployment.pk}/benchmarks/export/").content.decode().splitlines()))
    assert [(row["benchmark"], row["concurrency"]) for row in rows] == [(str(benchmark.pk), "1"), (str(benchmark.pk), "4")]
    assert float(rows[0]["ttft_p50_seconds"]) == one.ttft_seconds["p50"]


def test_made_prompts_have_the_length_that_was_asked_and_are_never_the_same(
    deployment: Deployment, engine: Engine, alice: User, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an engine that counts two tokens a word and three around them."""
    def counted(tokens: int) -> dict[str, int]:
        return {"prompt_tokens": 3 + 2 * len(engine.bodies[-1]["messages"][0]["content"].split()), "completion_tokens": tokens}

    monkeypatch.setattr(engine, "usage", counted)
    benchmark = make(deployment, alice, concurrency=[1, 2], num_requests=3, prompt_tokens=43)
    (work,) = begin()
    work.join(30)
    benchmark.refresh_from_db()
    prompts = [body["messages"][0]["content"] for body in engine.bodies][2:]
    assert benchmark.state == "succeeded" and {len(prompt.split()) for prompt in prompts} == {20} and len(set(prompts)) == 6
    assert benchmark.levels.get(concurrency=1).prompt_tokens == 3 * 43
    assert made_prompt(1, 5) == made_prompt(1, 5) != made_prompt(2, 5)
    assert words_for(10, [(4, 7), (12, 7)]) == 10, "an engine that counts nothing gets as many words"


@pytest.mark.slow
def test_on_real_engines_every_token_is_there_and_a_killed_one_ends_it(
    create: Any, alice: User, begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of the echo engine, which gives a token each PAUSE seconds and counts a letter of the prompt as one."""
    monkeypatch.setattr(benchmark_runner, "FALL_SECONDS", 10)
    deployment = reconciled(create(engine="fake", engine_config={"pause": PAUSE}, replicas=2), "ready", seconds=60)
    benchmark = make(deployment, alice, concurrency=[1, 4], num_requests=4, prompt_tokens=60, answer_tokens=10)
    (work,) = begin()
    work.join(60)
    benchmark.refresh_from_db()
    assert benchmark.state == "succeeded" and len(benchmark.hardware["replicas"]) == 2
    for level in benchmark.levels.all():
        assert (level.num_ok, level.completion_tokens) == (4, 40) and 200 <= level.prompt_tokens <= 280
        assert PAUSE <= level.ttft_seconds["p50"] < PAUSE + 0.1 and PAUSE * 0.9 <= level.itl_seconds["p50"] < PAUSE + 0.03
        assert level.e2e_seconds["p50"] >= 10 * PAUSE
    long = make(deployment, alice, concurrency=[1, 2], num_requests=1, prompt_tokens=400, answer_tokens=1000)
    (work,) = begin()
    until(lambda: DeploymentBenchmark.objects.get(pk=long.pk).level_now == 2, seconds=30)
    first = Replica.objects.filter(revision=long.revision).order_by("number")[0]
    os.killpg(first.engine_pid or 0, signal.SIGKILL)
    work.join(60)
    long.refresh_from_db()
    assert long.state == "failed" and long.state_reason.endswith("The level that was done is kept.")
    assert "Replica 1 is failed. The engine ended with code -9." in long.state_reason and long.levels.count() == 1


@pytest.mark.parametrize(("how", "state", "words"), [
    ("stop", "stopped", "Stopped by alice."),
    ("deployment", "failed", "No replica of the revision answers any more. “sums” is stopping. Stopped by a person."),
    ("delete", "failed", "The deployment was deleted."),
    ("scale", "failed", "Other replicas answer than those that it began with: 2 now, 1 then."),
    ("die", "failed", "broke off"),
])  # fmt: skip
def test_what_ends_it_early_is_said_and_the_levels_that_were_done_stay(
    how: str, state: str, words: str, deployment: Deployment, engine: Engine, alice: User, version: Versions, begin: Any
) -> None:
    later = "die a b c" if how == "die" else "count 5000 0.01"
    benchmark = make(deployment, alice, version("say a b", *[later] * 3), concurrency=[1, 3], num_requests=1)
    (work,) = begin()
    if how != "die":
        until(lambda: engine.running == 3)
    match how:
        case "stop":
            services.benchmark_stop(benchmark=benchmark, user=alice)
        case "deployment":
            services.deployment_stop(deployment=deployment, user=alice)
            Replica.objects.update(stop_wanted=True)
        case "delete":
            services.deployment_delete(deployment=deployment, user=alice)
            Replica.objects.update(stop_wanted=True)
        case "scale":
            Replica.objects.create(revision=benchmark.revision, number=2, state="ready", base_url="http://127.0.0.1:1")
    work.join(20)
    benchmark.refresh_from_db()
    assert benchmark.state == state and words in benchmark.state_reason
    assert benchmark.state_reason.endswith("The level that was done is kept.")
    assert [level.concurrency for level in benchmark.levels.all()] == [1] and benchmark.finished_at is not None
    until(lambda: engine.running == 0)


def test_what_the_engine_refuses_is_kept_with_its_words(
    deployment: Deployment, alice: User, version: Versions, begin: Any
) -> None:
    some = make(deployment, alice, version("say a", "full", "say b", "full"), concurrency=[2], num_requests=4)
    half = make(deployment, alice, version("say a", "full"), concurrency=[1, 2], num_requests=1)
    refused = make(deployment, alice, version("long"))
    for _ in range(3):
        (work,) = begin()
        work.join(30)
    for benchmark in (some, half, refused):
        benchmark.refresh_from_db()
    level = some.levels.get()
    assert (some.state, level.num_ok, level.num_errors) == ("succeeded", 2, 2) and level.errors == {"429: The engine is full.": 2}
    assert half.state == "succeeded" and half.levels.get(concurrency=2).num_errors == 1
    assert refused.state == "failed" and refused.state_reason.startswith("The engine refuses: 400: The prompt has 9000 tokens")


def test_a_level_ends_with_its_time(deployment: Deployment, alice: User, version: Versions, begin: Any) -> None:
    """Answers that run then are cut; their tokens count and their ends do not."""
    benchmark = make(deployment, alice, version("say a b", *["count 5000 0.01"] * 9), concurrency=[1, 2], num_requests=1, level_seconds=1)
    (work,) = begin()
    work.join(20)
    benchmark.refresh_from_db()
    level = benchmark.levels.get(concurrency=2)
    assert benchmark.state == "succeeded" and (level.num_ok, level.num_cut, level.e2e_seconds) == (0, 2, None)
    assert 1 <= level.seconds < 2 and 50 < level.completion_tokens <= 200 and level.requests_per_second == 0


def test_its_killed_process_is_noticed_and_the_levels_stay(
    deployment: Deployment, engine: Engine, alice: User, version: Versions, node: Node, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process, started as the platform starts it and killed in its second level."""
    settings.R1_NODE_NAME = node.name
    found = connection.settings_dict
    monkeypatch.setenv("DATABASE_URL", f"postgres://{found['USER']}@/{found['NAME']}?host={found['HOST']}&port={found['PORT']}")
    benchmark = make(deployment, alice, version("say a b", *["count 5000 0.01"] * 2), concurrency=[1, 2], num_requests=1)
    waiting = make(deployment, alice)
    benchmarking.benchmarks_start()
    waiting.refresh_from_db()
    assert waiting.waiting_reason == f"Waits for benchmark {benchmark.pk} of this deployment: two at once would measure each other."
    until(lambda: engine.running == 2, seconds=60)
    benchmark.refresh_from_db()
    assert benchmark.pid is not None and benchmarking.benchmarks_reconcile() == 0, "it lives"
    os.kill(benchmark.pid, signal.SIGKILL)
    until(lambda: benchmarking.benchmarks_reconcile() == 1)
    benchmark.refresh_from_db()
    assert benchmark.state == "lost" and started_at(benchmark.pid or 0) is None
    assert benchmark.state_reason == f"Its process on {node.name} ended before it was done. The level that was done is kept."
    assert [level.concurrency for level in benchmark.levels.all()] == [1]


def test_a_node_that_is_gone_or_shut_down_ends_it(deployment: Deployment, alice: User, node: Node, settings: Any) -> None:
    settings.R1_NODE_NAME = node.name
    first = make(deployment, alice)
    running = {"state": "running", "pid": None, "process_started_at": 1.0, "heartbeat_at": Now()}
    with transaction.atomic():
        DeploymentBenchmark.objects.filter(pk=first.pk).update(node=Node.objects.create(name="far"), **running)
    assert benchmarking.benchmarks_reconcile() == 0, "it was heard of just now"
    DeploymentBenchmark.objects.filter(pk=first.pk).update(heartbeat_at="2020-01-01T00:00:00Z")
    assert benchmarking.benchmarks_reconcile() == 1
    first.refresh_from_db()
    assert (first.state, first.state_reason) == ("lost", "far has not been heard of. No level was done.")
    second = make(deployment, alice)
    DeploymentBenchmark.objects.filter(pk=second.pk).update(node=node, **running)
    with pytest.raises(IntegrityError), transaction.atomic():
        DeploymentBenchmark.objects.filter(pk=make(deployment, alice).pk).update(node=node, **running)
    assert benchmarking.benchmarks_release()
    second.refresh_from_db()
    assert second.state == "stopped" and second.state_reason.startswith(f"The node {node.name} was shut down.")


def test_a_deployment_does_not_sleep_under_it(deployment: Deployment, alice: User) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(idle_seconds=60)
    benchmark = make(deployment, alice)
    quiet(deployment)
    sleep_step(deployment.pk)
    deployment.refresh_from_db()
    assert deployment.state == "ready"
    services.benchmark_stop(benchmark=benchmark, user=alice)
    sleep_step(deployment.pk)
    deployment.refresh_from_db()
    assert deployment.state == "asleep"


@pytest.mark.parametrize(("plan", "field"), [
    ({"concurrency": [4, 1]}, "plan.concurrency"), ({"concurrency": []}, "plan.concurrency"), ({"concurrency": [513]}, "plan.concurrency"),
    ({"level_seconds": 0}, "plan.level_seconds"), ({"streams": 1}, "plan.streams"), ({"ignore_end": True}, "plan.ignore_end"),
])  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_at_its_field(plan: dict[str, Any], field: str, deployment: Deployment, alice: User) -> None:
    with pytest.raises(ModelCoreError) as refused:
        make(deployment, alice, **plan)
    assert refused.value.field == field and not DeploymentBenchmark.objects.exists()
    assert BenchmarkPlan(concurrency=[1, 64]).num_planned == 32 + 64


def test_pages_and_api(
    deployment: Deployment, alice: User, begin: Any, client_erin: Client, client_bob: Client, api_erin: APIClient, api_bob: APIClient
) -> None:
    base, revision = f"/deployments/{deployment.pk}/benchmarks/", deployment.revisions.get()
    form = {"revision": revision.pk, "plan-concurrency": "[1, 2]", "plan-num_requests": "3", "plan-level_seconds": "30",
            "plan-prompt_tokens": "8", "plan-answer_tokens": "8"}  # fmt: skip
    assert "was not benchmarked yet" in client_bob.get(base).content.decode()
    wrong = client_erin.post(f"{base}new/", {**form, "plan-concurrency": "[2, 1]"})
    assert wrong.status_code == 422 and "concurrency" in str(wrong.context["plan_form"].errors)
    assert client_erin.post(f"{base}new/", form).status_code == 302
    benchmark = DeploymentBenchmark.objects.get()
    assert "It is in the queue." in client_bob.get(f"{base}{benchmark.pk}/").content.decode()
    (work,) = begin()
    work.join(30)
    page = client_bob.get(f"{base}{benchmark.pk}/").content.decode()
    assert "At most" in page and "without the gateway" in page and "act/stop" not in page
    told = api_bob.get(f"/api/v1/deployment-benchmarks/{benchmark.pk}/").json()
    assert told["state"] == "succeeded" and [level["concurrency"] for level in told["levels"]] == [1, 2]
    assert api_bob.post("/api/v1/deployment-benchmarks/", {"revision": revision.pk}).status_code == 403
    made = api_erin.post("/api/v1/deployment-benchmarks/", {"revision": revision.pk, "plan": {"concurrency": [1]}}).json()
    assert made["plan"]["num_requests"] == 32
    assert api_erin.delete(f"/api/v1/deployment-benchmarks/{made['id']}/").status_code == 409
    assert api_erin.post(f"/api/v1/deployment-benchmarks/{made['id']}/stop/").json()["state"] == "stopped"
    assert client_erin.post(f"{base}{made['id']}/act/delete/").status_code == 302
    compared = client_bob.get(base)
    assert [one["id"] for one in compared.context["compared"]] == [benchmark.pk]
    actions = set(AuditEntry.objects.filter(action__startswith="deployment.benchmark").values_list("action", flat=True))
    assert actions == {"deployment.benchmark", "deployment.benchmark_stop", "deployment.benchmark_delete"}
    Replica.objects.update(state="unreachable")
    assert "No revision answers now" in client_erin.get(f"{base}new/").content.decode()


def test_the_list_asks_as_often_for_many(deployment: Deployment, client_bob: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(12):
        make_benchmark(deployment)
    with django_assert_max_num_queries(18):
        assert client_bob.get(f"/deployments/{deployment.pk}/benchmarks/").status_code == 200
    with django_assert_max_num_queries(6):
        assert client_bob.get(f"/deployments/{deployment.pk}/benchmarks/export/").content.count(b"\n") == 1 + 12 * 2
