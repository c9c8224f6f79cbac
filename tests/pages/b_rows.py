"""Rows for the tests of the run, deployment, playground and usage pages, as the services would leave them."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from r1platform.models import Node, Project
from serving_app.benchmark_plan import BenchmarkPlan
from serving_app.models import (
    BenchmarkLevel,
    Conversation,
    Deployment,
    DeploymentBenchmark,
    DeploymentRevision,
    ImportedModel,
    Message,
    Replica,
)
from training_app.models import Checkpoint, Launch, MetricSeries, PhaseRun, Pipeline, RunAttempt, RunEvent

CONFIG: dict[str, Any] = {
    "phase": "reinforcement",
    "seed": 0,
    "reward": {"weights": {"solution_accuracy": 0.6, "efficiency": 0.4}},
    "checkpoint": {"every_steps": 6, "keep_last": 2, "keep_best": 1, "metric": "quality"},
}
RESULT: dict[str, Any] = {
    "accuracy_before": 0.5,
    "accuracy": 0.961,
    "accuracy_low": 0.941,
    "accuracy_high": 0.975,
    "quality": 0.9,
    "quality_low": 0.88,
    "num_problems": 512,
}


def make_run(project: Project, **values: Any) -> PhaseRun:
    """A run with one series; say in `values` what is different."""
    launch = values.pop("launch", None)
    defaults: dict[str, Any] = {
        "name": "better sums",
        "phase": "reinforcement",
        "config": CONFIG,
        "state": "running",
        "started_at": timezone.now(),
    }
    run = PhaseRun.objects.create(project=project, launch=launch, **{**defaults, **values})
    MetricSeries.objects.create(run=run, name="loss", num_points=3, last_step=3, last_value=0.5)
    return run


def make_launch(project: Project) -> Launch:
    pipeline = Pipeline.objects.create(project=project, name="Tiny R1")
    return Launch.objects.create(pipeline=pipeline, number=1)


def make_checkpoint(run: PhaseRun, node: Node, step: int = 6, **values: Any) -> Checkpoint:
    attempt = run.attempts.first() or RunAttempt.objects.create(run=run, number=1, node=node, state="running")
    metrics = values.pop("metrics", {"accuracy": 0.8, "quality": 0.7})
    return Checkpoint.objects.create(run=run, attempt=attempt, step=step, metrics=metrics, sha256="ab" * 32, **values)


def make_event(run: PhaseRun, node: Node, seq: int, kind: str, **payload: Any) -> RunEvent:
    attempt = run.attempts.first() or RunAttempt.objects.create(run=run, number=1, node=node, state="running")
    return RunEvent.objects.create(run=run, attempt=attempt, seq=seq, time=timezone.now(), kind=kind, payload=payload)


def make_deployment(project: Project, checkpoint: Checkpoint, name: str = "sums-r1", **values: Any) -> Deployment:
    """A ready deployment with one ready replica."""
    made = Deployment.objects.create(project=project, name=name, **{"state": "ready", **values})
    revision = DeploymentRevision.objects.create(deployment=made, number=1, checkpoint=checkpoint, engine="builtin")
    Replica.objects.create(
        revision=revision,
        number=1,
        state="ready",
        base_url="http://127.0.0.1:1",
        metrics={"running": 2, "ttft_seconds": 0.03},
    )
    return made


def make_benchmark(deployment: Deployment, **values: Any) -> DeploymentBenchmark:
    """A benchmark of the first revision that is done, with two levels."""
    made = DeploymentBenchmark.objects.create(
        deployment=deployment, revision=deployment.revisions.order_by("number")[0],
        **{"plan": BenchmarkPlan(concurrency=[1, 4]).resolved(), "state": "succeeded", "num_planned": 64, "num_done": 64, **values},
    )  # fmt: skip
    for concurrency, factor in ((1, 1.0), (4, 2.0)):
        spread = {"mean": 0.02 * factor, "p50": 0.02 * factor, "p90": 0.03 * factor, "p99": 0.04 * factor}
        BenchmarkLevel.objects.create(
            benchmark=made, concurrency=concurrency, num_ok=31, num_errors=1, errors={"429: The engine is full.": 1}, seconds=12.5,
            prompt_tokens=4096, completion_tokens=3968, tokens_per_second=317.4 * factor, requests_per_second=2.48 * factor,
            ttft_seconds=spread, itl_seconds=spread, e2e_seconds=spread,
        )  # fmt: skip
    return made


def make_import(project: Project, user: User, name: str = "of-others", **values: Any) -> ImportedModel:
    """An imported model that is ready; its directory need not be there."""
    facts: dict[str, Any] = {
        "architecture": "DeepseekV3ForCausalLM", "model_type": "deepseek_v3", "num_parameters": 1000, "stored_as": "F32", "num_bytes": 4000,
        "context": 128, "chat_template": "{{ messages }}", "chat_template_sha256": "ab" * 32, "sha256": "cd" * 32, "state": "ready",
        "files": [["model.safetensors", 4000, "ef" * 32]],
    }
    return ImportedModel.objects.create(project=project, name=name, approved_by=user, **{**facts, **values})


def make_conversation(
    project: Project, user: User, deployment: Deployment | None = None, title: str = "Adding two numbers"
) -> Conversation:
    """One question and one finished answer."""
    made = Conversation.objects.create(project=project, user=user, deployment=deployment, title=title)
    asked = Message.objects.create(conversation=made, role="user", content="What is 17 + 25?")
    Message.objects.create(
        conversation=made,
        parent=asked,
        role="assistant",
        content="It is **42**.",
        reasoning="7+5=12",
        state="done",
        seq=4,
        usage={
            "prompt_tokens": 9,
            "completion_tokens": 12,
            "reasoning_tokens": 5,
            "ttft_seconds": 0.04,
            "tokens_per_second": 210.0,
        },
    )
    return made
