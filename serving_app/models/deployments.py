"""Deployments with their revisions and replicas."""

from __future__ import annotations

import re

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Project, Transition
from serving_app.models.imports import ImportedModel
from serving_app.models.served import Artifact, Served, served_of
from serving_app.states import REVISION_ON_ITS_WAY, DeploymentState, ReplicaState, RevisionState
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
    idle_seconds = models.PositiveIntegerField(default=0)
    """Seconds without a request after which it sleeps until the next one; 0: never."""
    is_asleep = models.BooleanField(default=False)
    """While it sleeps no replica is wanted, whatever `desired_replicas` says."""
    woken_at = models.DateTimeField(null=True, blank=True)
    """When a request, or a person, last woke it."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(null=True, blank=True)
    """Set when a person deletes it; the row stays because usage refers to it, the name is then suffixed."""

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", DeploymentState, name="deployment_state"),
            models.CheckConstraint(
                condition=~Q(state="asleep") | Q(is_asleep=True, desired_replicas__gt=0), name="deployment_asleep_wants_some"
            ),
        ]

    def __str__(self) -> str:
        return self.shown_name

    @property
    def wanted_replicas(self) -> int:
        """Replicas that are to run now."""
        return 0 if self.is_asleep else self.desired_replicas

    @property
    def shown_name(self) -> str:
        """The name as people knew it; the one that a deleted deployment keeps only makes room for another."""
        return self.name if self.deleted_at is None else f"{re.sub(DELETED_NAME, '', self.name)} (deleted)"


class DeploymentTransition(Transition):
    """One move of a deployment."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="transitions")


class DeploymentRevision(models.Model):
    """What a deployment serves, on which engine, with which arguments. These never change; a change makes a new revision."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    checkpoint = models.ForeignKey(Checkpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions")
    imported_model = models.ForeignKey(ImportedModel, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions")
    """One of both, read through `served`."""
    engine = models.CharField(max_length=40)
    """Name of a file in `model_core/serving/engines`."""
    engine_config = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=RevisionState.choices, default=RevisionState.CURRENT)
    state_reason = models.TextField(blank=True, default="")
    share = models.PositiveSmallIntegerField(default=100)
    """Percent of the requests that it is meant to answer."""
    plan = models.JSONField(default=dict)
    """How it takes over: a complete `shifting.ShiftPlan`; empty for the first revision of a deployment."""
    step_started_at = models.DateTimeField(null=True, blank=True)
    """Since when it has had this share; what it answered before does not count for the step."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-number"]
        constraints = [
            one_of("state", RevisionState, name="revision_state"),
            models.UniqueConstraint(fields=["deployment", "number"], name="revision_number_once"),
            models.UniqueConstraint(fields=["deployment"], condition=Q(state="current"), name="revision_one_current"),
            models.UniqueConstraint(
                fields=["deployment"], condition=Q(state__in=sorted(REVISION_ON_ITS_WAY)), name="revision_one_on_its_way"
            ),
            models.CheckConstraint(
                condition=Q(checkpoint=None, imported_model__isnull=False) | Q(checkpoint__isnull=False, imported_model=None),
                name="revision_serves_one",
            ),
            models.CheckConstraint(
                condition=Q(state="current", share=100)
                | Q(state="shifting", share__gte=1, share__lte=99)
                | Q(state__in=["warming", "retired", "rolled_back"], share=0),
                name="revision_share_of_state",
            ),
        ]

    def __str__(self) -> str:
        return f"Revision {self.number}"

    @property
    def served(self) -> Served:
        """What it serves."""
        artifact: Artifact | None = self.checkpoint or self.imported_model
        assert artifact is not None, "revision_serves_one"
        return served_of(artifact)


class RevisionTransition(Transition):
    """One move of a revision, steps of its share too."""

    revision = models.ForeignKey(DeploymentRevision, on_delete=models.CASCADE, related_name="transitions")


class Replica(models.Model):
    """One engine process on one node; written by its supervisor under its fence."""

    revision = models.ForeignKey(DeploymentRevision, on_delete=models.CASCADE, related_name="replicas")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=ReplicaState.choices, default=ReplicaState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    stop_wanted = models.BooleanField(default=False)
    drain_seconds = models.PositiveIntegerField(default=30)
    """How long requests that run may go on once its stop is wanted."""
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


class ReplicaTransition(Transition):
    """One move of a replica."""

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="transitions")
