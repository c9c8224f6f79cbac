"""Datasets and their immutable versions; preparing one is a process like a run (`training_app.preparation`)."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Project, Transition
from training_app.states import VersionState


class DatasetKind(models.TextChoices):
    """The three kinds of the article."""

    WEB = "web", "Filtered web text"
    DOMAIN = "domain", "Domain-specific"
    SELF = "self", "Self-generated"


class Dataset(models.Model):
    """A named source of text; what it holds is in its versions."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=10, choices=DatasetKind.choices, default=DatasetKind.DOMAIN)
    description = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="dataset_name_once"),
            one_of("kind", DatasetKind, name="dataset_kind"),
        ]

    def __str__(self) -> str:
        return self.name


class Upload(models.Model):
    """A file a person sent; stored under an opaque id, never under its own name."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="uploads")
    file_name = models.CharField(max_length=255)
    format = models.CharField(max_length=12)
    """jsonl, csv, parquet or text."""
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    columns = models.JSONField(default=list)
    """Field names found in the first rows, for the mapping form."""
    preview = models.JSONField(default=list)
    """The first rows, at most 20, values cut to 500 characters."""
    benchmark = models.CharField(max_length=60, blank=True, default="")
    """The name under which the contamination filter compares with its questions; empty: it is no benchmark."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "benchmark"], condition=~Q(benchmark=""), name="upload_benchmark_once"),
        ]


class DatasetVersion(models.Model):
    """One preparation of a dataset: immutable and hashed once it is ready."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=VersionState.choices, default=VersionState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    upload = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="versions")
    rollouts_of = models.ForeignKey("PhaseRun", null=True, blank=True, on_delete=models.PROTECT, related_name="made_versions")
    """The run whose stored rollouts are its rows."""
    inputs = models.JSONField(default=dict)
    """What was read besides the upload: {"benchmarks": {name: {"file_name", "sha256", "upload"}}, "steps": [first, last]}."""
    config = models.JSONField()
    """The resolved `model_core.config.PrepareConfig`."""
    manifest = models.JSONField(null=True, blank=True)
    """`dataset.json` of the prepared directory: counts, hash, statistics, the funnel with examples."""
    sha256 = models.CharField(max_length=64, blank=True, default="")
    num_rows = models.PositiveIntegerField(default=0)
    num_held_out = models.PositiveIntegerField(default=0)
    progress = models.FloatField(default=0)
    counts = models.JSONField(default=dict)
    """What became of the rows so far, as `counts.json` of the preparation says; kept when it fails."""
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    pid = models.IntegerField(null=True, blank=True)
    process_started_at = models.FloatField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="version_number_once"),
            one_of("state", VersionState, name="version_state"),
            models.CheckConstraint(
                condition=~Q(state="ready") | (Q(manifest__isnull=False) & ~Q(sha256="")), name="version_ready_is_hashed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"


class VersionTransition(Transition):
    """One move of a dataset version."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="transitions")
