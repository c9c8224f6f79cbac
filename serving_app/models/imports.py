"""Models of others: directories that an operator put under R1_MODELS and a person approved."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Project
from serving_app.states import ImportState


class ImportedModel(models.Model):
    """A directory as it was when it was approved. Its files are the operator's and are never written or deleted here."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="imported_models")
    name = models.CharField(max_length=200)
    """Of the directory, directly under R1_MODELS."""
    state = models.CharField(max_length=12, choices=ImportState.choices, default=ImportState.CHECKING)
    state_reason = models.TextField(blank=True, default="")
    progress = models.FloatField(default=0.0)
    """Share of its bytes that are hashed."""
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.PROTECT, related_name="imported_models")
    """Where it was hashed, which is tried first when it is served."""
    architecture = models.CharField(max_length=200)
    model_type = models.CharField(max_length=200)
    num_parameters = models.PositiveBigIntegerField()
    stored_as = models.CharField(max_length=20)
    """Format of most weights, as safetensors calls it."""
    context = models.PositiveIntegerField(null=True, blank=True)
    """Tokens that prompt and answer may have together; empty when config.json does not say."""
    num_bytes = models.PositiveBigIntegerField()
    files = models.JSONField(default=list)
    """[name, bytes, SHA-256] of each, once they are hashed."""
    sha256 = models.CharField(max_length=64, blank=True, default="")
    """Over `files`; empty until they are hashed."""
    chat_template = models.TextField()
    chat_template_sha256 = models.CharField(max_length=64)
    refused_by = models.JSONField(default=dict)
    """Engines that cannot serve it, with the reason."""
    approved_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    """Who saw the template and imported it."""
    approved_at = models.DateTimeField(db_default=Now())
    fence = models.PositiveIntegerField(default=1)
    heartbeat_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)
    """Set when a person takes it off the list; the row stays because revisions that have ended refer to it."""

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", ImportState, name="import_state"),
            models.UniqueConstraint(fields=["project", "name"], condition=Q(removed_at=None), name="import_once"),
            models.CheckConstraint(condition=~Q(state="ready") | ~Q(sha256=""), name="import_ready_is_hashed"),
            models.CheckConstraint(condition=Q(progress__gte=0, progress__lte=1), name="import_progress"),
        ]

    def __str__(self) -> str:
        return self.name
