"""What each request used, and what using a deployment costs."""

from __future__ import annotations

import uuid
from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.models import ApiKey, Project
from serving_app.models.deployments import Deployment


def _dollars() -> models.DecimalField[Decimal, Decimal]:
    return models.DecimalField(max_digits=10, decimal_places=3, default=Decimal(0))


class Price(models.Model):
    """What using a deployment costs: dollars per million tokens by kind, or dollars an hour of a device."""

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, related_name="price")
    input_dollars = _dollars()
    cached_dollars = _dollars()
    """Of input tokens that the engine found in its prefix cache; the others cost `input_dollars`."""
    output_dollars = _dollars()
    """Of thinking and answer alike."""
    device_hour_dollars = _dollars()
    """Of a request's share of its replica: among n that run at once each has one nth of the time."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(input_dollars__gte=0, cached_dollars__gte=0, output_dollars__gte=0, device_hour_dollars__gte=0),
                name="price_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(device_hour_dollars=0) | Q(input_dollars=0, cached_dollars=0, output_dollars=0),
                name="price_by_token_or_by_time",
            ),
        ]

    def __str__(self) -> str:
        if self.device_hour_dollars:
            return f"${self.device_hour_dollars:f} a device-hour"
        return f"${self.input_dollars:f} / ${self.cached_dollars:f} / ${self.output_dollars:f} per million tokens in / cached / out"


class UsageRecord(models.Model):
    """One request through the gateway or the playground; kept when key or deployment go.

    While it runs its row is written once a second with what it has used so far, so that nothing is lost with the process.
    """

    RUNNING, INTERRUPTED = 0, 500
    """Statuses of a request that runs, and of one whose web process ended before it."""
    request_id = models.UUIDField(default=uuid.uuid4, db_default=RandomUUID(), unique=True)
    project = models.ForeignKey(Project, null=True, on_delete=models.SET_NULL, related_name="usage")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="usage")
    model_name = models.CharField(max_length=80)
    revision = models.ForeignKey("serving_app.DeploymentRevision", null=True, on_delete=models.SET_NULL, related_name="usage")
    """Whose engine answered or failed; empty when no engine was reached."""
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="usage")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    prompt_tokens = models.PositiveIntegerField(default=0)
    cached_tokens = models.PositiveIntegerField(default=0)
    """Of the prompt, found in the engine's prefix cache."""
    completion_tokens = models.PositiveIntegerField(default=0)
    reasoning_tokens = models.PositiveIntegerField(default=0)
    device_seconds = models.FloatField(default=0)
    cost_dollars = models.DecimalField(max_digits=18, decimal_places=9, default=Decimal(0))
    """By the price at the time of the request."""
    status = models.PositiveSmallIntegerField(default=200)
    ttft_seconds = models.FloatField(null=True)
    seconds = models.FloatField(default=0)
    created_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(null=True)
    """When a running request was last written."""

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["project", "created_at"], name="usage_by_day"),
            models.Index(fields=["deployment", "created_at"], name="usage_of_deployment"),
            models.Index(fields=["api_key", "created_at"], name="usage_by_key"),
            models.Index(fields=["heartbeat_at"], condition=Q(status=0), name="usage_running"),
        ]
