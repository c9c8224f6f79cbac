"""The admin of training. States, fences and processes are shown and not edited: a state machine owns them."""

from __future__ import annotations

from django.contrib import admin

from r1platform.lib.admin import ReadOnly, ReadOnlyInline
from training_app.models import (
    Alert,
    AlertRule,
    Checkpoint,
    Dataset,
    DatasetVersion,
    Evaluation,
    EvaluationTransition,
    Launch,
    LaunchTransition,
    PhaseRun,
    Pipeline,
    PipelinePhase,
    RunAttempt,
    RunTransition,
    Upload,
    VersionTransition,
)


class VersionInline(ReadOnlyInline):
    model = DatasetVersion
    fields = ["number", "state", "num_rows", "num_held_out", "created_at"]


class VersionTransitionInline(ReadOnlyInline):
    model = VersionTransition


class PhaseInline(ReadOnlyInline):
    model = PipelinePhase
    fk_name = "pipeline"
    fields = ["position", "name", "phase", "budget_fraction", "gate_metric", "gate_threshold"]


class LaunchTransitionInline(ReadOnlyInline):
    model = LaunchTransition


class RunInline(ReadOnlyInline):
    model = PhaseRun
    fields = ["name", "phase", "state", "gate_verdict", "device_seconds"]


class AttemptInline(ReadOnlyInline):
    model = RunAttempt
    fields = ["number", "state", "state_reason", "node", "created_at", "finished_at"]


class RunTransitionInline(ReadOnlyInline):
    model = RunTransition


@admin.register(Dataset)
class DatasetAdmin(ReadOnly):
    list_display = ["name", "project", "kind", "created_by", "created_at"]
    list_filter = ["kind", "project"]
    search_fields = ["name", "description"]
    inlines = [VersionInline]


@admin.register(DatasetVersion)
class DatasetVersionAdmin(ReadOnly):
    list_display = ["dataset", "number", "state", "num_rows", "num_held_out", "created_at"]
    list_filter = ["state"]
    search_fields = ["dataset__name", "sha256"]
    inlines = [VersionTransitionInline]


@admin.register(Upload)
class UploadAdmin(ReadOnly):
    list_display = ["file_name", "project", "format", "size_bytes", "created_by", "created_at"]
    search_fields = ["file_name", "sha256"]


@admin.register(Pipeline)
class PipelineAdmin(ReadOnly):
    list_display = ["name", "project", "template", "seed", "created_by", "created_at"]
    list_filter = ["project"]
    search_fields = ["name"]
    inlines = [PhaseInline]


@admin.register(Launch)
class LaunchAdmin(ReadOnly):
    list_display = ["pipeline", "number", "state", "created_by", "created_at", "finished_at"]
    list_filter = ["state"]
    inlines = [RunInline, LaunchTransitionInline]


@admin.register(PhaseRun)
class PhaseRunAdmin(ReadOnly):
    list_display = ["id", "name", "project", "phase", "state", "gate_verdict", "device_seconds", "created_at"]
    list_filter = ["state", "phase", "gate_verdict", "project"]
    search_fields = ["name", "notes"]
    inlines = [AttemptInline, RunTransitionInline]


@admin.register(RunAttempt)
class RunAttemptAdmin(ReadOnly):
    list_display = ["run", "number", "state", "node", "fence", "heartbeat_at", "exit_code"]
    list_filter = ["state", "node"]


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnly):
    list_display = ["run", "step", "is_final", "size_bytes", "created_at", "removed_at"]
    list_filter = ["is_final"]
    search_fields = ["sha256"]


@admin.register(AlertRule)
class AlertRuleAdmin(ReadOnly):
    list_display = ["name", "project", "kind", "metric", "threshold", "is_enabled", "created_by", "created_at"]
    list_filter = ["kind", "is_enabled", "project"]
    search_fields = ["name"]


@admin.register(Alert)
class AlertAdmin(ReadOnly):
    list_display = ["name", "project", "run", "api_key", "message", "raised_at", "resolved_at", "resolved_by"]
    list_filter = [("resolved_at", admin.EmptyFieldListFilter), "project"]
    list_select_related = ["project", "run", "api_key", "resolved_by"]
    search_fields = ["name", "message", "run__name"]


class EvaluationTransitionInline(ReadOnlyInline):
    model = EvaluationTransition


@admin.register(Evaluation)
class EvaluationAdmin(ReadOnly):
    list_display = ["id", "project", "benchmark", "data_name", "state", "accuracy", "created_by", "created_at"]
    list_filter = ["state", "benchmark", "project"]
    search_fields = ["data_name", "endpoint", "endpoint_model"]
    exclude = ["endpoint_key"]
    inlines = [EvaluationTransitionInline]
