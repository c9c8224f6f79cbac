"""`/api/v1/deployment-benchmarks/`: start, follow and stop benchmarks of deployments; their levels."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.access import for_user, require_role
from r1platform.api import ProjectViewSet
from r1platform.filters import IdFilter, RowFilters
from r1platform.models import Role
from serving_app import services
from serving_app.models import BenchmarkLevel, DeploymentBenchmark, DeploymentRevision
from training_app.api.fields import VersionField
from training_app.models import DatasetVersion


class RevisionField(serializers.PrimaryKeyRelatedField[DeploymentRevision]):
    """A revision of a deployment of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        if request is None:
            return DeploymentRevision.objects.none()
        found = for_user(DeploymentRevision.objects.filter(deployment__deleted_at=None), request.user, path="deployment__project")
        return found.select_related("deployment__project")


class SpreadSerializer(serializers.Serializer[Any]):
    """Of many times; seconds."""

    mean = serializers.FloatField()
    p50 = serializers.FloatField()
    p90 = serializers.FloatField()
    p99 = serializers.FloatField()


class BenchmarkLevelSerializer(serializers.ModelSerializer[BenchmarkLevel]):
    """So many streams at once. Times are as the asker saw them, straight from the engines."""

    errors = serializers.DictField(child=serializers.IntegerField(), help_text="Sentence of the engine: how often.")  # type: ignore[assignment]
    ttft_seconds = SpreadSerializer(allow_null=True, help_text="To the first token.")
    itl_seconds = SpreadSerializer(allow_null=True, help_text="Between one token of a stream and the next.")
    e2e_seconds = SpreadSerializer(allow_null=True, help_text="To the last token.")

    class Meta:
        model = BenchmarkLevel
        fields = [
            "concurrency", "num_ok", "num_errors", "num_cut", "num_others", "errors", "seconds", "prompt_tokens",
            "completion_tokens", "tokens_per_second", "requests_per_second", "ttft_seconds", "itl_seconds", "e2e_seconds",
            "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class DeploymentBenchmarkSerializer(serializers.ModelSerializer[DeploymentBenchmark]):
    """`levels` has those that were done, also of a benchmark that ended early."""

    number = serializers.IntegerField(source="revision.number", read_only=True, help_text="Of the revision.")
    engine = serializers.CharField(source="revision.engine", read_only=True)
    engine_config = serializers.JSONField(source="revision.engine_config", read_only=True)
    levels = BenchmarkLevelSerializer(many=True, read_only=True)

    class Meta:
        model = DeploymentBenchmark
        fields = [
            "id", "deployment", "revision", "number", "engine", "engine_config", "plan", "dataset_version", "state",
            "state_reason", "waiting_reason", "hardware", "num_planned", "num_done", "level_now", "levels", "created_at",
            "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class NewDeploymentBenchmarkSerializer(serializers.Serializer[Any]):
    revision = RevisionField(queryset=DeploymentRevision.objects.none(), help_text="Id of a revision that answers.")
    plan = serializers.DictField(
        required=False,
        help_text="concurrency, num_requests, level_seconds, prompt_tokens, answer_tokens, ignore_end; what is not given is usual.",
    )
    dataset_version = VersionField(
        queryset=DatasetVersion.objects.none(), required=False, allow_null=True,
        help_text="Whose held-out prompts are asked; by default made ones.",
    )  # fmt: skip


class BenchmarkFilter(RowFilters):
    project = IdFilter("deployment__project")

    class Meta:
        model = DeploymentBenchmark
        fields = ["project", "deployment", "revision", "state"]


class DeploymentBenchmarks(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, ProjectViewSet):
    """Loads on the engines of a revision, newest first."""

    queryset = DeploymentBenchmark.objects.filter(deployment__deleted_at=None)
    serializer_class = DeploymentBenchmarkSerializer
    project_path = "deployment__project"
    filterset_class = BenchmarkFilter
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[DeploymentBenchmark]:
        found = super().get_queryset().select_related("deployment__project", "revision")
        return found.prefetch_related("levels").order_by("-id")

    @extend_schema(request=NewDeploymentBenchmarkSerializer, responses={201: DeploymentBenchmarkSerializer})
    def create(self, request: Request) -> Response:
        """Queues a benchmark; one at a time runs on a node."""
        serializer = NewDeploymentBenchmarkSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        values = dict(serializer.validated_data)
        require_role(request.user, values["revision"].deployment.project, Role.EDITOR)
        made = services.benchmark_create(user=_user(request), **values)
        return Response(DeploymentBenchmarkSerializer(made).data, status=status.HTTP_201_CREATED)

    def perform_destroy(self, instance: DeploymentBenchmark) -> None:
        """With its figures; 409 while it runs or waits."""
        services.benchmark_delete(benchmark=instance, user=_user(self.request))

    @extend_schema(request=None, responses=DeploymentBenchmarkSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Ends it; levels that were done are kept."""
        services.benchmark_stop(benchmark=self.get_object(), user=_user(request))
        return Response(DeploymentBenchmarkSerializer(self.get_object()).data)


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
