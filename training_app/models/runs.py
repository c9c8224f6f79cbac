"""Phase runs, their attempts, their events and their checkpoints."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Now

from r1platform.lib.constraints import one_of
from r1platform.models import Node, Project, Transition
from training_app.models.datasets import DatasetVersion, Upload
from training_app.models.pipelines import Launch, PipelinePhase
from training_app.states import AttemptState, Desired, GateAction, GateDirection, GateVerdict, RunState


class PhaseRun(models.Model):
    """One phase executed with one immutable configuration: what the pages call a run."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    name = models.CharField(max_length=120)
    phase = models.CharField(max_length=60)
    launch = models.ForeignKey(Launch, null=True, blank=True, on_delete=models.CASCADE, related_name="runs")
    pipeline_phase = models.ForeignKey(PipelinePhase, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    position = models.PositiveSmallIntegerField(default=0)
    state = models.CharField(max_length=12, choices=RunState.choices, default=RunState.QUEUED)
    state_reason = models.TextField(blank=True, default="")
    desired = models.CharField(max_length=6, choices=Desired.choices, default=Desired.RUN)
    waiting_reason = models.TextField(blank=True, default="")
    """Why a queued run does not start yet, as a sentence."""
    config = models.JSONField()
    """The resolved `model_core.config.RunConfig` without paths."""
    dataset_version = models.ForeignKey(DatasetVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    starts_from = models.ForeignKey("Checkpoint", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    rollouts_from = models.ForeignKey("Checkpoint", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    num_processes = models.PositiveSmallIntegerField(default=1)
    budget_device_seconds = models.FloatField(null=True, blank=True)
    dollars_per_device_hour = models.GeneratedField(
        expression=Cast(KT("config__budget__dollars_per_device_hour"), models.FloatField()),
        output_field=models.FloatField(null=True), db_persist=True,
    )  # fmt: skip
    """The price in its configuration: sums over ten thousand runs cannot unpack each one's."""
    gate_metric = models.CharField(max_length=40, blank=True, default="")
    gate_threshold = models.FloatField(null=True, blank=True)
    gate_direction = models.CharField(max_length=8, choices=GateDirection.choices, default=GateDirection.AT_LEAST)
    gate_action = models.CharField(max_length=8, choices=GateAction.choices, default=GateAction.HOLD)
    gate_verdict = models.CharField(max_length=12, choices=GateVerdict.choices, default=GateVerdict.NONE)
    gate_measured = models.JSONField(null=True, blank=True)
    """What the gate was decided on: `model_core.gates.Judged` as JSON; empty until it is decided."""
    benchmark_data = models.ForeignKey(Upload, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """The file of the benchmark that the gate names."""
    retry_of = models.OneToOneField("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retried_as")
    """The run that this one repeats with other settings and stands in for; a run is repeated so at most once."""
    result_checkpoint = models.ForeignKey("Checkpoint", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """The checkpoint that counts as its result after it was rolled back; empty: its last one."""
    result = models.JSONField(null=True, blank=True)
    """`result.json` of the last attempt that ended."""
    progress = models.JSONField(default=dict)
    """Payload of the last `progress` event: step, total, stage, remaining_seconds …"""
    summary = models.JSONField(default=dict)
    """Last value of each scalar, and of each evaluation: what tables and cards show."""
    device_seconds = models.FloatField(default=0)
    num_tokens = models.BigIntegerField(default=0)
    tags = models.JSONField(default=list)
    notes = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("state", RunState, name="run_state"),
            one_of("desired", Desired, name="run_desired"),
            one_of("gate_verdict", GateVerdict, name="run_gate_verdict"),
            one_of("gate_action", GateAction, name="run_gate_action"),
            one_of("gate_direction", GateDirection, name="run_gate_direction"),
            models.CheckConstraint(condition=Q(num_processes__gte=1), name="run_processes_positive"),
        ]
        indexes = [
            models.Index(fields=["project", "-id"], name="run_project_newest"),
            models.Index(fields=["state"], name="run_by_state"),
        ]

    def __str__(self) -> str:
        return f"Run {self.pk} · {self.name}"

    def get_state_display(self) -> str:  # type: ignore[no-redef]
        """The state in a word; a run that stops because it was paused is pausing."""
        if self.state == RunState.STOPPING and self.desired == Desired.PAUSE:
            return "Pausing"
        return str(RunState(self.state).label)


class RunTransition(Transition):
    """One move of a run: who, when and why."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="transitions")


class RunAttempt(models.Model):
    """One execution in one run directory. Written only by its supervisor, which proves itself by `fence`."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=12, choices=AttemptState.choices, default=AttemptState.CLAIMED)
    state_reason = models.TextField(blank=True, default="")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="attempts")
    fence = models.PositiveIntegerField(default=1)
    supervisor_pid = models.IntegerField(null=True, blank=True)
    supervisor_started_at = models.FloatField(null=True, blank=True)
    trainer_pid = models.IntegerField(null=True, blank=True)
    trainer_started_at = models.FloatField(null=True, blank=True)
    """Start times as `/proc` tells them, seconds since boot: with the boot id they tell a reused pid."""
    boot_id = models.CharField(max_length=64, blank=True, default="")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    events_offset = models.BigIntegerField(default=0)
    """Bytes of events.jsonl that are in the table."""
    last_seq = models.BigIntegerField(default=0)
    stop_asked_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run_id", "number"]
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="attempt_number_once"),
            models.UniqueConstraint(
                fields=["run"], condition=Q(state__in=["claimed", "running", "stopping"]), name="attempt_one_live"
            ),
            one_of("state", AttemptState, name="attempt_state"),
        ]

    def __str__(self) -> str:
        return f"Attempt {self.number} of run {self.run_id}"


class RunEvent(models.Model):
    """One line of an attempt's events.jsonl, scalars included; the metric tables are made from those besides.

    `id` grows in order of ingestion over all attempts of a run: the cursor of `/ws/runs/<id>/?after=<seq>`.
    """

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="events")
    attempt = models.ForeignKey(RunAttempt, on_delete=models.CASCADE, related_name="events")
    seq = models.BigIntegerField()
    time = models.DateTimeField()
    kind = models.CharField(max_length=40)
    payload = models.JSONField(default=dict)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["attempt", "seq"], name="event_once")]
        indexes = [
            models.Index(fields=["run", "id"], name="event_of_run"),
            models.Index(fields=["run", "kind", "id"], name="event_of_kind"),
        ]


class Checkpoint(models.Model):
    """A complete checkpoint on disk; the path follows from attempt and step, it is never stored or taken from a user."""

    run = models.ForeignKey(PhaseRun, on_delete=models.CASCADE, related_name="checkpoints")
    attempt = models.ForeignKey(RunAttempt, on_delete=models.CASCADE, related_name="checkpoints")
    step = models.PositiveIntegerField()
    metrics = models.JSONField(default=dict)
    sha256 = models.CharField(max_length=64, blank=True, default="")
    size_bytes = models.BigIntegerField(default=0)
    is_final = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    removed_at = models.DateTimeField(null=True, blank=True)
    """When the trainer's best-k / last-k rule deleted it."""

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["attempt", "step"], name="checkpoint_once")]

    def __str__(self) -> str:
        return f"Step {self.step} of run {self.run_id}"
