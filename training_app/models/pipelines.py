"""Pipelines: a chain of phases with budgets and gates, and each launch of one."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import Project, Transition
from training_app.models.datasets import DatasetVersion, Upload
from training_app.states import GateAction, GateDirection, LaunchState


class Pipeline(models.Model):
    """A plan that can be launched any number of times."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="pipelines")
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True, default="")
    template = models.CharField(max_length=40, blank=True, default="")
    """File name in `training_app/pipeline_templates` that it was made from."""
    seed = models.PositiveIntegerField(default=0)
    budget_device_seconds = models.FloatField(null=True, blank=True)
    """Budget of the whole pipeline, like the three that follow; each phase has its fraction of every one."""
    budget_wall_seconds = models.FloatField(null=True, blank=True)
    budget_dollars = models.FloatField(null=True, blank=True)
    budget_tokens = models.BigIntegerField(null=True, blank=True)
    dollars_per_device_hour = models.FloatField(null=True, blank=True)
    """What one device costs in an hour; a budget in dollars needs it."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="pipeline_name_once"),
            models.CheckConstraint(
                condition=Q(budget_device_seconds=None) | Q(budget_device_seconds__gt=0), name="pipeline_budget_positive"
            ),
            models.CheckConstraint(
                condition=(Q(budget_wall_seconds=None) | Q(budget_wall_seconds__gt=0))
                & (Q(budget_dollars=None) | Q(budget_dollars__gt=0))
                & (Q(budget_tokens=None) | Q(budget_tokens__gt=0))
                & (Q(dollars_per_device_hour=None) | Q(dollars_per_device_hour__gt=0)),
                name="pipeline_budgets_positive",
            ),
            models.CheckConstraint(
                condition=Q(budget_dollars=None) | Q(dollars_per_device_hour__isnull=False), name="pipeline_dollars_have_price"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class PipelinePhase(models.Model):
    """One node of the pipeline: which phase, on what data, from which earlier phase, with what budget and gate."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="phases")
    position = models.PositiveSmallIntegerField()
    name = models.SlugField(max_length=60)
    """Unique in the pipeline; "cold-start", "second-reinforcement" …"""
    phase = models.CharField(max_length=60)
    """Name of a file in `model_core/phases`."""
    starts_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="followers")
    """Phase whose checkpoint this one starts from; empty: `from_checkpoint`, or a new model."""
    from_checkpoint = models.ForeignKey("Checkpoint", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """Checkpoint of an earlier run that it starts from instead: the pipeline goes on from a model that is there."""
    rollouts_from = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """Phase whose checkpoint generates the samples (rejection sampling); empty: `starts_from`."""
    dataset_version = models.ForeignKey(DatasetVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    config = models.JSONField(default=dict)
    """The resolved `model_core.config.RunConfig` without paths."""
    budget_fraction = models.FloatField(default=1.0)
    gate_metric = models.CharField(max_length=40, blank=True, default="quality_low")
    """What the gate compares, see `model_core.config.GateConfig`; empty: no gate."""
    gate_threshold = models.FloatField(null=True, blank=True)
    gate_direction = models.CharField(max_length=8, choices=GateDirection.choices, default=GateDirection.AT_LEAST)
    gate_action = models.CharField(max_length=8, choices=GateAction.choices, default=GateAction.HOLD)
    benchmark_data = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """The file of the benchmark that the gate names."""
    num_processes = models.PositiveSmallIntegerField(default=1)

    class Meta:
        ordering = ["pipeline_id", "position"]
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "name"], name="phase_name_once"),
            models.UniqueConstraint(fields=["pipeline", "position"], name="phase_position_once"),
            models.CheckConstraint(condition=Q(starts_from=None) | Q(from_checkpoint=None), name="phase_starts_once"),
            one_of("gate_action", GateAction, name="phase_gate_action"),
            one_of("gate_direction", GateDirection, name="phase_gate_direction"),
            models.CheckConstraint(
                condition=Q(budget_fraction__gt=0) & Q(budget_fraction__lte=1), name="phase_budget_fraction"
            ),
            models.CheckConstraint(
                condition=Q(gate_metric="") | Q(gate_threshold__isnull=False), name="phase_gate_has_threshold"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline.name} / {self.name}"

    @property
    def stop_early(self) -> int:
        """Held-out measurements in a row that end the phase early when they pass its gate safely; 0: none do."""
        return int(self.config.get("gate", {}).get("stop_early", 0))


class Launch(models.Model):
    """One launch of a pipeline; its runs are `PhaseRun`s. At most one live launch per pipeline."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="launches")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=LaunchState.choices, default=LaunchState.RUNNING)
    state_reason = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "launches"
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "number"], name="launch_number_once"),
            models.UniqueConstraint(
                fields=["pipeline"], condition=Q(state__in=["running", "held", "paused"]), name="launch_one_live"
            ),
            one_of("state", LaunchState, name="launch_state"),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline.name} #{self.number}"


class LaunchTransition(Transition):
    """One move of a launch."""

    launch = models.ForeignKey(Launch, on_delete=models.CASCADE, related_name="transitions")
