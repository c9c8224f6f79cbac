"""What each request used."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from r1platform.models import ApiKey, Project
from serving_app.models.deployments import Deployment


class UsageRecord(models.Model):
    """One request through the gateway or the playground; append-only, kept when key or deployment go."""

    project = models.ForeignKey(Project, null=True, on_delete=models.SET_NULL, related_name="usage")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="usage")
    model_name = models.CharField(max_length=80)
    revision = models.ForeignKey("serving_app.DeploymentRevision", null=True, on_delete=models.SET_NULL, related_name="usage")
    """Whose engine answered or failed; empty when no engine was reached."""
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="usage")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    reasoning_tokens = models.PositiveIntegerField(default=0)
    status = models.PositiveSmallIntegerField(default=200)
    ttft_seconds = models.FloatField(null=True)
    seconds = models.FloatField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["project", "created_at"], name="usage_by_day"),
            models.Index(fields=["deployment", "created_at"], name="usage_of_deployment"),
        ]
