"""Deployments with their revisions and replicas, conversations with their messages, and what each request used."""

from __future__ import annotations

import re

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import ApiKey, Node, Project
from serving_app.states import DeploymentState, GenerationState, ReplicaState
from training_app.models import Checkpoint

DELETED_NAME = r"--deleted-\d+$"
"""How names of deleted deployments end."""


class Deployment(models.Model):
    """A model name that the gateway answers to, and what stands behind it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="deployments")
    name = models.SlugField(max_length=80, unique=True)
    """The model id in `/v1/models`; unique over all projects."""
    description = models.TextField(blank=True, default="")
    state = models.CharField(max_length=12, choices=DeploymentState.choices, default=DeploymentState.PENDING)
    state_reason = models.TextField(blank=True, default="")
    desired_replicas = models.PositiveSmallIntegerField(default=1)
    """Wanted number of replicas; 0 stops the deployment."""
    replicas_before_stop = models.PositiveSmallIntegerField(default=1)
    """Wanted number at the last stop; a start brings it back."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(null=True, blank=True)
    """Set when a person deletes it; the row stays because usage refers to it, the name is then suffixed."""

    class Meta:
        ordering = ["-id"]
        constraints = [one_of("state", DeploymentState, name="deployment_state")]

    def __str__(self) -> str:
        return self.shown_name

    @property
    def shown_name(self) -> str:
        """The name as people knew it; the one that a deleted deployment keeps only makes room for another."""
        return self.name if self.deleted_at is None else f"{re.sub(DELETED_NAME, '', self.name)} (deleted)"


class DeploymentTransition(models.Model):
    """One move of a deployment."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="transitions")
    before = models.CharField(max_length=12)
    after = models.CharField(max_length=12)
    reason = models.TextField(blank=True, default="")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]


class DeploymentRevision(models.Model):
    """What a deployment serves: checkpoint, engine, arguments. Immutable; a change makes a new one."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="revisions")
    engine = models.CharField(max_length=40)
    """Name of a file in `model_core/serving/engines`."""
    engine_config = models.JSONField(default=dict)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["deployment", "number"], name="revision_number_once")]


class Replica(models.Model):
    """One engine process on one node; written by its supervisor under its fence."""

    revision = models.ForeignKey(DeploymentRevision, on_delete=models.CASCADE, related_name="replicas")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=ReplicaState.choices, default=ReplicaState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    stop_wanted = models.BooleanField(default=False)
    node = models.ForeignKey(Node, null=True, blank=True, on_delete=models.PROTECT, related_name="replicas")
    fence = models.PositiveIntegerField(default=1)
    supervisor_pid = models.IntegerField(null=True, blank=True)
    supervisor_started_at = models.FloatField(null=True, blank=True)
    engine_pid = models.IntegerField(null=True, blank=True)
    engine_started_at = models.FloatField(null=True, blank=True)
    boot_id = models.CharField(max_length=64, blank=True, default="")
    base_url = models.CharField(max_length=120, blank=True, default="")
    engine_key = models.CharField(max_length=80, blank=True, default="")
    """The engine's own key, never a user's."""
    permanent = models.BooleanField(default=False)
    """It failed for a reason that a restart does not mend, such as a refused checkpoint."""
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    metrics = models.JSONField(default=dict)
    """Last scrape, in the common names: running, queued, tokens_per_second …"""
    created_at = models.DateTimeField(db_default=Now())
    ready_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", ReplicaState, name="replica_state"),
            models.UniqueConstraint(fields=["revision", "number"], name="replica_number_once"),
            models.CheckConstraint(condition=~Q(state="ready") | ~Q(base_url=""), name="replica_ready_has_url"),
        ]
        indexes = [
            models.Index(
                fields=["revision"], condition=~Q(state__in=["stopped", "failed", "lost"]), name="replica_live"
            )
        ]

    def __str__(self) -> str:
        return f"Replica {self.number} of revision {self.revision_id}"


class ReplicaTransition(models.Model):
    """One move of a replica."""

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="transitions")
    before = models.CharField(max_length=12)
    after = models.CharField(max_length=12)
    reason = models.TextField(blank=True, default="")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]


class Conversation(models.Model):
    """A chat of one user with a deployment."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    deployment = models.ForeignKey(Deployment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    title = models.CharField(max_length=160, blank=True, default="")
    system_prompt = models.TextField(blank=True, default="")
    parameters = models.JSONField(default=dict)
    """temperature, top_p, max_tokens … as the gateway takes them."""
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-updated_at"]


class Message(models.Model):
    """One turn. An assistant's turn is filled by `serving_app.generation` while it streams."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")
    role = models.CharField(max_length=10, choices=[("user", "User"), ("assistant", "Assistant")])
    content = models.TextField(blank=True, default="")
    reasoning = models.TextField(blank=True, default="")
    state = models.CharField(max_length=12, choices=GenerationState.choices, default=GenerationState.DONE)
    state_reason = models.TextField(blank=True, default="")
    stop_wanted = models.BooleanField(default=False)
    seq = models.PositiveIntegerField(default=0)
    """Number of stream events so far; content and reasoning hold all of them up to here."""
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    usage = models.JSONField(default=dict)
    """prompt_tokens, completion_tokens, reasoning_tokens, ttft_seconds, seconds, tokens_per_second, finish_reason, error_code."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(role__in=["user", "assistant"]), name="message_role"),
            one_of("state", GenerationState, name="message_state"),
        ]
        indexes = [
            models.Index(
                fields=["heartbeat_at"], condition=Q(state__in=["queued", "thinking", "answering"]), name="message_live"
            )
        ]


class UsageRecord(models.Model):
    """One request through the gateway or the playground; append-only, kept when key or deployment go."""

    project = models.ForeignKey(Project, null=True, on_delete=models.SET_NULL, related_name="usage")
    deployment = models.ForeignKey(Deployment, null=True, on_delete=models.SET_NULL, related_name="usage")
    model_name = models.CharField(max_length=80)
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
        indexes = [models.Index(fields=["project", "created_at"], name="usage_by_day")]
