"""Benchmarks of deployments: what was asked of a revision, at how many streams at once, and how it answered."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Transition
from serving_app.models.deployments import Deployment, DeploymentRevision
from serving_app.states import BenchmarkState
from training_app.models import DatasetVersion


class DeploymentBenchmark(models.Model):
    """One revision asked at rising numbers of streams at once; its levels are kept as far as they were done.

    Its process proves itself by its own pid and start time, and is the load: what dies with it is not adopted.
    """

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="benchmarks")
    revision = models.ForeignKey(DeploymentRevision, on_delete=models.CASCADE, related_name="benchmarks")
    plan = models.JSONField()
    """A complete `benchmark_plan.BenchmarkPlan`."""
    dataset_version = models.ForeignKey(DatasetVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """Whose held-out prompts are asked; empty: made ones."""
    state = models.CharField(max_length=12, choices=BenchmarkState.choices, default=BenchmarkState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    waiting_reason = models.TextField(blank=True, default="")
    hardware = models.JSONField(default=dict)
    """What it was measured on: {"replicas": [{"number", "node", "devices"}], "nodes": {name: {"cpu", "num_cpus", …}}}."""
    num_planned = models.PositiveIntegerField(default=0)
    """Requests of all levels."""
    num_done = models.PositiveIntegerField(default=0)
    """Of them, over; written once a second."""
    level_now = models.PositiveIntegerField(default=0)
    """Streams at once of the level that runs; 0: none does."""
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    """Where the load is made."""
    pid = models.IntegerField(null=True, blank=True)
    process_started_at = models.FloatField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", BenchmarkState, name="benchmark_state"),
            models.UniqueConstraint(fields=["deployment"], condition=Q(state="running"), name="benchmark_one_runs"),
        ]
        indexes = [models.Index(fields=["deployment", "-id"], name="benchmark_newest")]

    def __str__(self) -> str:
        return f"Benchmark {self.pk}"


class BenchmarkTransition(Transition):
    """One move of a benchmark."""

    benchmark = models.ForeignKey(DeploymentBenchmark, on_delete=models.CASCADE, related_name="transitions")


class BenchmarkLevel(models.Model):
    """One level that was done: so many streams at once. Times are seconds as the asker saw them.

    Spreads are {"mean", "p50", "p90", "p99"}, empty when there was nothing to measure.
    """

    benchmark = models.ForeignKey(DeploymentBenchmark, on_delete=models.CASCADE, related_name="levels")
    concurrency = models.PositiveIntegerField()
    num_ok = models.PositiveIntegerField()
    num_errors = models.PositiveIntegerField(default=0)
    num_cut = models.PositiveIntegerField(default=0)
    """Streams that were cut when the level's time was over."""
    errors = models.JSONField(default=dict)
    """{sentence of the engine: how often}."""
    seconds = models.FloatField()
    prompt_tokens = models.PositiveBigIntegerField()
    completion_tokens = models.PositiveBigIntegerField()
    """Of all streams, those that were cut too."""
    tokens_per_second = models.FloatField()
    requests_per_second = models.FloatField()
    """Of streams that came to their end."""
    ttft_seconds = models.JSONField(null=True)
    itl_seconds = models.JSONField(null=True)
    """Between one token of a stream and the next."""
    e2e_seconds = models.JSONField(null=True)
    num_others = models.PositiveIntegerField(default=0)
    """Requests of people that the deployment answered meanwhile: they share the engines."""
    finished_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["benchmark_id", "concurrency"]
        constraints = [models.UniqueConstraint(fields=["benchmark", "concurrency"], name="benchmark_level_once")]

    def __str__(self) -> str:
        return f"{self.concurrency} at once"
