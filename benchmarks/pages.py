"""Every page of the platform with 10,000 runs, 1,000 datasets and 100 deployments in the project.

A page's time is the server's: from the request to the whole answer inside the web process, with its database. What is counted
besides is its queries, with few rows and with all: the number must be the same. Goal: p95 at most 150 ms on every page.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks._platform import new_project, platform
from benchmarks._report import write

NUM_RUNS, NUM_DATASETS, NUM_DEPLOYMENTS, NUM_EVENTS = 10_000, 1000, 100, 5000
FEW = 12
TIMES = 20
GOAL_MS = 150.0
LISTS = {
    "runs, last page": "/runs/?page=200", "runs, searched": "/runs/?q=run+1", "runs, by accuracy": "/runs/?sort=accuracy",
    "compare, many": "/runs/compare/?runs={some}", "compare, table": "/runs/compare/?runs={some}&part=table",
    "API runs": "/api/v1/runs/", "API datasets": "/api/v1/datasets/", "API deployments": "/api/v1/deployments/",
}  # fmt: skip
"""Beside the kinds of pages: what a large project makes slow first."""


def main() -> None:
    """Fills a project, measures and writes the result."""
    with platform():
        from django.test import Client

        project, user = new_project()
        ids = first_rows(project, user)
        client = Client(SERVER_NAME="localhost")
        client.force_login(user)
        more_runs(project, user, ids["some"], FEW)
        more_datasets(project, FEW)
        more_deployments(project, ids["checkpoint"], FEW)
        few = {name: num_queries(client, path) for name, path in paths(ids)}
        more_runs(project, user, ids["some"], NUM_RUNS)
        more_datasets(project, NUM_DATASETS)
        more_deployments(project, ids["checkpoint"], NUM_DEPLOYMENTS)
        gc.collect()
        gc.freeze()  # as the web process does when it has loaded everything
        detail = {name: {**timed(client, path), "queries": [few[name], num_queries(client, path)]} for name, path in paths(ids)}
    slowest = max(detail, key=lambda name: detail[name]["p95_ms"])
    growing = [name for name, one in detail.items() if one["queries"][0] != one["queries"][1]]
    write(
        "pages", packages=("django", "djangorestframework", "psycopg"), ours=detail[slowest]["p95_ms"], peer=None,
        ratio=round(GOAL_MS / detail[slowest]["p95_ms"], 2), unit="ms of server time of the slowest page, p95; ratio is to 150 ms",
        detail={
            "slowest": slowest, "queries_grow_on": growing, "rows": {"runs": NUM_RUNS, "datasets": NUM_DATASETS,
            "deployments": NUM_DEPLOYMENTS}, "pages": detail,
        },
    )  # fmt: skip


def paths(ids: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and address of each page."""
    from r1platform.demo.pages import PAGES

    for name, path in {**PAGES, **LISTS}.items():
        yield name, path.format_map({**ids, "some": ",".join(map(str, ids["some"][:FEW]))})


def timed(client: Any, path: str) -> dict[str, float]:
    """p50 and p95 in ms, after two that do not count."""
    seconds = []
    for _ in range(TIMES + 2):
        started = time.perf_counter()
        answer = client.get(path)
        seconds.append(time.perf_counter() - started)
        assert answer.status_code == 200, (path, answer.status_code)
    ordered = sorted(seconds[2:])
    p95 = ordered[int(len(ordered) * 0.95)]
    return {"p50_ms": round(statistics.median(ordered) * 1000, 1), "p95_ms": round(p95 * 1000, 1)}


def num_queries(client: Any, path: str) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    assert client.get(path).status_code == 200, path
    with CaptureQueriesContext(connection) as found:
        client.get(path)
    return len(found)


def first_rows(project: Any, user: Any) -> dict[str, Any]:
    """A launch whose second phase runs, with thousands of events, a checkpoint, a deployment and a chat."""
    from django.utils import timezone

    from r1platform.models import Node
    from serving_app.benchmark_plan import BenchmarkPlan
    from serving_app.models import BenchmarkLevel, Conversation, DeploymentBenchmark, Message
    from training_app import services
    from training_app.models import Checkpoint, Dataset, DatasetVersion, PhaseRun, RunAttempt, RunEvent

    node = Node.objects.create(name="bench", heartbeat_at=timezone.now())
    dataset = Dataset.objects.create(project=project, name="Sums", kind="self")
    version = DatasetVersion.objects.create(
        dataset=dataset, number=1, state="ready", manifest={}, sha256="ab" * 32, num_rows=4000, num_held_out=600, config={}
    )
    plan = services.pipeline_from_template(project=project, user=user, template="article", name="Tiny R1", dataset_version=version)
    launch = services.pipeline_launch(pipeline=plan, user=user)
    run = launch.runs.order_by("position")[1]
    PhaseRun.objects.filter(pk=run.pk).update(state="running", started_at=timezone.now(), summary={"perf/tok_s": 7140.0})
    attempt = RunAttempt.objects.create(run=run, number=1, node=node, state="running")
    RunEvent.objects.bulk_create(
        RunEvent(run=run, attempt=attempt, seq=seq, time=timezone.now(), kind=kind, payload=payload)
        for seq, (kind, payload) in enumerate(events(), start=1)
    )
    checkpoints = [
        Checkpoint.objects.create(run=run, attempt=attempt, step=step, metrics={"accuracy": 0.8}, sha256="cd" * 32)
        for step in range(1, 101)
    ]
    deployment = more_deployments(project, checkpoints[-1].pk, 1)[0]
    chat = Conversation.objects.create(project=project, user=user, deployment=deployment, title="Adding two numbers")
    Message.objects.create(conversation=chat, role="user", content="What is 17 + 25?")
    load = DeploymentBenchmark.objects.create(
        deployment=deployment, revision=deployment.revisions.get(), plan=BenchmarkPlan(concurrency=[1, 4]).resolved(),
        state="succeeded", num_planned=64, num_done=64,
    )  # fmt: skip
    spread = {"mean": 0.02, "p50": 0.02, "p90": 0.03, "p99": 0.04}
    for concurrency in (1, 4):
        BenchmarkLevel.objects.create(
            benchmark=load, concurrency=concurrency, num_ok=32, seconds=12.5, prompt_tokens=4096, completion_tokens=3968,
            tokens_per_second=317.4, requests_per_second=2.48, ttft_seconds=spread, itl_seconds=spread, e2e_seconds=spread,
        )  # fmt: skip
    return {
        "launch": launch.pk, "pipeline": plan.pk, "phase": plan.phases.get(position=1).pk, "run": run.pk, "dataset": dataset.pk,
        "number": 1, "deployment": deployment.pk, "conversation": chat.pk, "load": load.pk, "checkpoint": checkpoints[-1].pk,
        "some": [],
    }  # fmt: skip


def events() -> Iterator[tuple[str, dict[str, Any]]]:
    for step in range(NUM_EVENTS):
        values = {"loss": 1 / (step + 1), "reward/total": 0.5}
        yield "scalars", {"step": step, "tokens": step * 100, "process_seconds": step / 2, "values": values}
    for step in range(0, NUM_EVENTS, 10):
        yield "rollouts", {"step": step, "file": "samples/none.jsonl.gz", "num_groups": 4, "num_rollouts": 64}
        yield "experts", {"step": step, "layers": [[0.5, 0.5]], "bias": [[0.0, 0.0]], "max_violation": [0.0]}
    yield "progress", {"stage": "updating", "step": NUM_EVENTS, "total": 2 * NUM_EVENTS, "fraction": 0.5, "remaining_seconds": 60.0}


def more_runs(project: Any, user: Any, known: list[int], wanted: int) -> None:
    """Ended runs until there are so many; `known` takes their ids."""
    from django.utils import timezone

    from model_core.config import RunConfig
    from training_app.models import MetricSeries, PhaseRun

    config = RunConfig.parse({"phase": "cold_start"}).resolved()
    rows = PhaseRun.objects.bulk_create(
        PhaseRun(
            project=project, created_by=user, name=f"run {number}", phase="cold_start", config={**config, "seed": number},
            state="succeeded" if number % 7 else "failed", started_at=timezone.now(), finished_at=timezone.now(),
            device_seconds=number, tags=[f"tag{number % 30}"], summary={"loss": 0.5},
            result={"accuracy": number % 100 / 100, "accuracy_low": 0.1, "accuracy_high": 0.9, "quality": 0.5, "quality_low": 0.4},
        )
        for number in range(len(known), wanted)
    )  # fmt: skip
    known += [row.pk for row in rows]
    MetricSeries.objects.bulk_create(MetricSeries(run_id=pk, name="loss", last_value=0.5) for pk in known[-len(rows) :])


def more_datasets(project: Any, wanted: int) -> None:
    from training_app.models import Dataset, DatasetVersion

    before = Dataset.objects.count()
    names = [f"dataset {number}" for number in range(before, before + wanted)]
    made = Dataset.objects.bulk_create(Dataset(project=project, name=name, kind="self") for name in names)
    DatasetVersion.objects.bulk_create(
        DatasetVersion(
            dataset=dataset, number=number, state="ready", manifest={}, sha256="ab" * 32, num_rows=10, num_held_out=5, config={}
        )
        for dataset in made
        for number in (1, 2)
    )


def more_deployments(project: Any, checkpoint: int, wanted: int) -> list[Any]:
    """Ready deployments of a checkpoint with a replica each."""
    from serving_app.models import Deployment, DeploymentRevision, Replica

    before = Deployment.objects.count()
    made = [Deployment.objects.create(project=project, name=f"deployment-{before + n}", state="ready") for n in range(wanted)]
    for deployment in made:
        revision = DeploymentRevision.objects.create(deployment=deployment, number=1, checkpoint_id=checkpoint, engine="builtin")
        Replica.objects.create(revision=revision, number=1, state="ready", base_url="http://127.0.0.1:1", metrics={"running": 2})
    return made


if __name__ == "__main__":
    main()
