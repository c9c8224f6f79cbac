"""Evaluations: one benchmark asked of one model, its result, and what was said of each problem."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Project, Transition
from training_app.models.datasets import Upload
from training_app.models.runs import Checkpoint
from training_app.states import EvaluationState

TASK = "task"
"""The benchmark whose rows are made from a task, not read from a file."""


class Evaluation(models.Model):
    """A benchmark with its pinned settings, asked of a checkpoint or of an OpenAI-compatible endpoint.

    Its supervisor proves itself by its own pid and start time; `number` counts the starts, and names what they hold.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="evaluations")
    benchmark = models.CharField(max_length=60)
    """Name of a file in `model_core/evaluation/benchmarks`."""
    data_name = models.CharField(max_length=60)
    """The benchmark file that is read, or the task whose problems are made."""
    upload = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """The file when it is the project's own."""
    task_config = models.JSONField(default=dict)
    """The resolved settings of the task; empty: it is a file."""
    data_sha256 = models.CharField(max_length=64, blank=True, default="")
    """Of the rows that were read; empty until it starts."""
    checkpoint = models.ForeignKey(Checkpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="evaluations")
    endpoint = models.CharField(max_length=300, blank=True, default="")
    endpoint_model = models.CharField(max_length=200, blank=True, default="")
    endpoint_key = models.CharField(max_length=500, blank=True, default="")
    """Its key: shown nowhere, and forgotten as soon as the evaluation has ended."""
    config = models.JSONField(default=dict)
    """The resolved settings of the benchmark: prompt and sampling."""
    limit = models.PositiveIntegerField(null=True, blank=True)
    """Only the first so many problems; empty: all."""
    seed = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=12, choices=EvaluationState.choices, default=EvaluationState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    waiting_reason = models.TextField(blank=True, default="")
    num_problems = models.PositiveIntegerField(default=0)
    """Problems that are asked; 0 until it starts."""
    num_done = models.PositiveIntegerField(default=0)
    result = models.JSONField(null=True, blank=True)
    """What `python -m model_core evaluate` wrote, without the problems."""
    accuracy = models.FloatField(null=True, blank=True)
    """`result.accuracy`, pass@1, to sort by."""
    device_seconds = models.FloatField(default=0)
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    number = models.PositiveIntegerField(default=0)
    pid = models.IntegerField(null=True, blank=True)
    process_started_at = models.FloatField(null=True, blank=True)
    child_pid = models.IntegerField(null=True, blank=True)
    child_started_at = models.FloatField(null=True, blank=True)
    boot_id = models.CharField(max_length=64, blank=True, default="")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", EvaluationState, name="evaluation_state"),
            models.CheckConstraint(
                condition=(Q(checkpoint=None) & ~Q(endpoint="")) | (Q(checkpoint__isnull=False) & Q(endpoint="")),
                name="evaluation_one_source",
            ),
            models.CheckConstraint(condition=~Q(state="succeeded") | Q(result__isnull=False), name="evaluation_has_result"),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running"]) | Q(endpoint_key=""), name="evaluation_key_is_forgotten"
            ),
        ]
        indexes = [models.Index(fields=["project", "-id"], name="evaluation_newest")]

    def __str__(self) -> str:
        return f"Evaluation {self.pk}"

    @property
    def model_label(self) -> str:
        """Who answers, for people; of a checkpoint its run must be loaded."""
        if self.checkpoint is not None:
            return f"{self.checkpoint.run.name.replace('-', ' ')} · run {self.checkpoint.run_id}, step {self.checkpoint.step}"
        return f"{self.endpoint_model or 'first model'} at {urlsplit(self.endpoint).netloc}"


class EvaluationTransition(Transition):
    """One move of an evaluation."""

    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="transitions")


class EvaluationProblem(models.Model):
    """One problem of an evaluation that has succeeded: how each sample was judged; the texts stay in the samples' file."""

    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="problems")
    row = models.PositiveIntegerField()
    """0-based row of the data."""
    prompt = models.TextField()
    expected = models.TextField()
    answer = models.TextField(blank=True, default="")
    """What most samples answer; empty: none of them gives an answer."""
    correct = models.BooleanField(null=True, blank=True)
    """Whether that is right; empty: unscored."""
    accuracy = models.FloatField(null=True, blank=True)
    """Share of right samples."""
    no_answer = models.PositiveIntegerField(default=0)
    truncated = models.PositiveIntegerField(default=0)
    samples = models.JSONField(default=list)
    """[{"correct", "answer", "reason", "finish_reason"}]."""
    at_byte = models.BigIntegerField(null=True, blank=True)
    num_bytes = models.PositiveIntegerField(default=0)
    """Where the texts stand in the samples' file."""

    class Meta:
        ordering = ["evaluation_id", "row"]
        constraints = [models.UniqueConstraint(fields=["evaluation", "row"], name="evaluation_problem_once")]
