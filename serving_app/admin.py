"""The admin of serving. States, fences and processes are shown and not edited: a state machine owns them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from r1platform.lib.admin import ReadOnly, ReadOnlyInline
from serving_app.models import (
    BenchmarkLevel,
    BenchmarkTransition,
    Conversation,
    ConversationShare,
    Deployment,
    DeploymentBenchmark,
    DeploymentRevision,
    DeploymentTransition,
    ImportedModel,
    Judgement,
    Message,
    Preset,
    Price,
    Replica,
    ReplicaTransition,
    RevisionTransition,
    UsageRecord,
)


class RevisionInline(ReadOnlyInline):
    model = DeploymentRevision
    fields = ["number", "state", "share", "checkpoint", "imported_model", "engine", "engine_config", "created_by", "created_at"]


class DeploymentTransitionInline(ReadOnlyInline):
    model = DeploymentTransition
    fields = ["before", "after", "reason", "user", "at"]


class RevisionTransitionInline(ReadOnlyInline):
    model = RevisionTransition
    fields = ["before", "after", "reason", "user", "at"]


class ReplicaTransitionInline(ReadOnlyInline):
    model = ReplicaTransition
    fields = ["before", "after", "reason", "user", "at"]


@admin.register(Deployment)
class DeploymentAdmin(ModelAdmin):  # type: ignore[misc]
    """Only the description is open here; start, stop and scale are on the deployment's page."""

    list_display = ["name", "project", "state", "desired_replicas", "created_at", "deleted_at"]
    list_filter = ["state", "project"]
    search_fields = ["name", "description"]
    readonly_fields = [
        "project", "name", "state", "state_reason", "desired_replicas", "replicas_before_stop", "idle_seconds", "is_asleep",
        "woken_at", "created_by", "created_at", "deleted_at",
    ]  # fmt: skip
    inlines = [RevisionInline, DeploymentTransitionInline]
    list_select_related = ["project"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(DeploymentRevision)
class RevisionAdmin(ReadOnly):
    list_display = ["deployment", "number", "state", "share", "checkpoint", "imported_model", "engine", "created_at"]
    list_filter = ["state", "engine"]
    list_select_related = ["deployment", "checkpoint", "imported_model"]
    inlines = [RevisionTransitionInline]


@admin.register(ImportedModel)
class ImportedModelAdmin(ReadOnly):
    """Imported and removed on its page, which leaves audit entries."""

    list_display = ["name", "project", "state", "architecture", "num_bytes", "approved_by", "approved_at", "removed_at"]
    list_filter = ["state", "project"]
    search_fields = ["name", "=sha256"]
    list_select_related = ["project", "approved_by"]


@admin.register(Replica)
class ReplicaAdmin(ReadOnly):
    """The engine's key is not shown."""

    list_display = ["id", "revision", "number", "state", "node", "heartbeat_at", "ready_at", "finished_at"]
    list_filter = ["state", "node"]
    list_select_related = ["revision", "node"]
    exclude = ["engine_key"]
    inlines = [ReplicaTransitionInline]


class BenchmarkLevelInline(ReadOnlyInline):
    model = BenchmarkLevel
    fields = ["concurrency", "num_ok", "num_errors", "num_cut", "num_others", "seconds", "tokens_per_second", "requests_per_second"]


class BenchmarkTransitionInline(ReadOnlyInline):
    model = BenchmarkTransition
    fields = ["before", "after", "reason", "user", "at"]


@admin.register(DeploymentBenchmark)
class BenchmarkAdmin(ReadOnly):
    """Started, stopped and deleted on its own page."""

    list_display = ["id", "deployment", "revision", "state", "node", "created_by", "created_at", "finished_at"]
    list_filter = ["state", "node"]
    list_select_related = ["deployment", "revision", "node", "created_by"]
    inlines = [BenchmarkLevelInline, BenchmarkTransitionInline]


@admin.register(DeploymentTransition)
class DeploymentTransitionAdmin(ReadOnly):
    list_display = ["deployment", "before", "after", "reason", "user", "at"]
    list_select_related = ["deployment", "user"]


@admin.register(RevisionTransition)
class RevisionTransitionAdmin(ReadOnly):
    list_display = ["revision", "before", "after", "reason", "user", "at"]
    list_select_related = ["revision", "user"]


@admin.register(ReplicaTransition)
class ReplicaTransitionAdmin(ReadOnly):
    list_display = ["replica", "before", "after", "reason", "at"]
    list_select_related = ["replica"]


@admin.register(Conversation)
class ConversationAdmin(ReadOnly):
    """What people wrote is listed by title; its text is theirs."""

    list_display = ["id", "user", "project", "deployment", "created_at", "updated_at"]
    list_filter = ["project"]
    exclude = ["system_prompt"]
    list_select_related = ["user", "project", "deployment"]


@admin.register(Message)
class MessageAdmin(ReadOnly):
    list_display = ["id", "conversation", "role", "state", "seq", "heartbeat_at", "created_at"]
    list_filter = ["role", "state"]
    exclude = ["content", "reasoning"]
    list_select_related = ["conversation"]


@admin.register(Judgement)
class JudgementAdmin(ReadOnly):
    """The texts are shown in the review, to the editors of the project."""

    list_display = ["id", "project", "user", "kind", "value", "state", "reviewed_by", "created_at"]
    list_filter = ["kind", "state", "project"]
    exclude = ["prompt", "chosen", "rejected", "comment", "versions"]
    list_select_related = ["project", "user", "reviewed_by"]


@admin.register(ConversationShare)
class ConversationShareAdmin(ReadOnly):
    """The link itself is its owner's."""

    list_display = ["id", "conversation", "created_at", "revoked_at"]
    exclude = ["token"]
    list_select_related = ["conversation"]


@admin.register(Preset)
class PresetAdmin(ReadOnly):
    list_display = ["name", "project", "user", "is_shared", "created_at"]
    list_filter = ["project", "is_shared"]
    exclude = ["system_prompt"]
    list_select_related = ["project", "user"]


@admin.register(Price)
class PriceAdmin(ReadOnly):
    """Prices are set on the page of usage, which leaves an audit entry."""

    list_display = ["deployment", "input_dollars", "cached_dollars", "output_dollars", "device_hour_dollars"]
    list_select_related = ["deployment"]


@admin.register(UsageRecord)
class UsageAdmin(ReadOnly):
    list_display = [
        "created_at", "project", "model_name", "user", "api_key", "status", "prompt_tokens", "completion_tokens",
        "cost_dollars", "seconds",
    ]  # fmt: skip
    list_filter = ["status", "model_name", "project"]
    search_fields = ["=request_id"]
    date_hierarchy = "created_at"
    list_select_related = ["project", "user", "api_key"]
