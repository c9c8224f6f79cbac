"""`/api/v1/evaluations/` and `/benchmarks/`: ask a benchmark of a checkpoint or an endpoint, follow it, read every problem."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import CursorPaging, ProjectViewSet, wanted_project
from r1platform.filters import IdFilter, RowFilters
from r1platform.models import Role
from training_app import selectors, services
from training_app.api.fields import CheckpointField, user_of, values_of
from training_app.models import Checkpoint, Evaluation, EvaluationProblem
from training_app.selectors.evaluations import VERDICTS


class ByRow(CursorPaging):
    ordering = "row"


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    """`result` has accuracy (pass@1) with its 95 % interval, pass@k, majority@k, and what was unscored and why."""

    model = serializers.CharField(source="model_label", read_only=True)
    title = serializers.SerializerMethodField()
    changed = serializers.SerializerMethodField(help_text="What is not as the benchmark has pinned it.")

    class Meta:
        model = Evaluation
        fields = [
            "id", "project", "benchmark", "title", "data_name", "data_sha256", "upload", "task_config", "checkpoint", "endpoint",
            "endpoint_model", "model", "config", "changed", "limit", "seed", "state", "state_reason", "waiting_reason",
            "num_problems", "num_done", "result", "accuracy", "device_seconds", "created_at", "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_title(self, evaluation: Evaluation) -> str:
        return selectors.benchmark_title(evaluation)

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_changed(self, evaluation: Evaluation) -> list[str]:
        return selectors.changed_settings(evaluation)


class NewEvaluationSerializer(serializers.Serializer[Any]):
    """Who answers is a checkpoint or an endpoint; one of both."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    benchmark = serializers.CharField(max_length=60, help_text="See GET benchmarks/.")
    data = serializers.CharField(  # type: ignore[assignment]
        required=False, max_length=60,
        help_text="Name of the benchmark file (by default the benchmark's own), or of the task for the benchmark “task”.",
    )  # fmt: skip
    checkpoint = CheckpointField(queryset=Checkpoint.objects.none(), required=False, allow_null=True)
    endpoint = serializers.CharField(required=False, max_length=300, help_text="Address of an OpenAI-compatible endpoint.")
    endpoint_model = serializers.CharField(required=False, max_length=200, help_text="By default the first that it lists.")
    endpoint_key = serializers.CharField(
        required=False, max_length=500, write_only=True, help_text="Shown nowhere, forgotten when the evaluation ends."
    )
    config = serializers.DictField(required=False, help_text="Settings that differ from the pinned ones.")
    task_config = serializers.DictField(required=False, help_text="Settings of the task.")
    limit = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=100_000)
    seed = serializers.IntegerField(required=False, default=0, min_value=0, max_value=2**31 - 1)


class ResumeSerializer(serializers.Serializer[Any]):
    endpoint_key = serializers.CharField(required=False, max_length=500, write_only=True)


class ProblemSerializer(serializers.ModelSerializer[EvaluationProblem]):
    """`correct` is that of the answer which most samples give; null: unscored."""

    class Meta:
        model = EvaluationProblem
        fields = ["row", "prompt", "expected", "answer", "correct", "accuracy", "no_answer", "truncated"]


class SampleSerializer(serializers.Serializer[Any]):
    completion = serializers.CharField(allow_null=True, help_text="All that was said, thinking included.")
    answer = serializers.CharField(allow_null=True, help_text="What the extractor found in it.")
    correct = serializers.BooleanField(allow_null=True, help_text="null: unscored.")
    reason = serializers.CharField(help_text="Why it is not plainly right or wrong.")
    finish_reason = serializers.CharField()


class OneProblemSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField()
    prompt = serializers.CharField()
    expected = serializers.CharField()
    answer = serializers.CharField(allow_null=True)
    correct = serializers.BooleanField(allow_null=True)
    accuracy = serializers.FloatField(allow_null=True)
    samples = SampleSerializer(many=True)


class MatrixRowSerializer(serializers.Serializer[Any]):
    label = serializers.CharField()  # type: ignore[assignment]
    source = serializers.CharField(help_text="Of a published figure: where it stands.")  # type: ignore[assignment]
    cells = serializers.ListField(child=serializers.JSONField(allow_null=True))


class MatrixSerializer(serializers.Serializer[Any]):
    """Cells stand in the order of `columns`."""

    columns = serializers.ListField(child=serializers.CharField())
    rows = MatrixRowSerializer(many=True)
    references = MatrixRowSerializer(many=True)


class BenchmarkSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    licence = serializers.CharField()
    schema = serializers.DictField()
    references = serializers.ListField(child=serializers.DictField(), help_text="Published figures in per cent, with their source.")


class Benchmarks(viewsets.ViewSet):
    """What can be asked."""

    @extend_schema(responses=BenchmarkSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every benchmark with its pinned settings and published figures."""
        return Response(selectors.benchmarks_known())


class EvaluationFilter(RowFilters):
    run = IdFilter("checkpoint__run")

    class Meta:
        model = Evaluation
        fields = ["project", "benchmark", "data_name", "checkpoint", "state"]


class Evaluations(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, ProjectViewSet):
    """Benchmarks asked of models, newest first."""

    queryset = Evaluation.objects.select_related("project", "checkpoint__run")
    serializer_class = EvaluationSerializer
    filterset_class = EvaluationFilter
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewEvaluationSerializer, responses={201: EvaluationSerializer})
    def create(self, request: Request) -> Response:
        """Queues an evaluation; it runs on a node, resumable, and tells how far it is."""
        values = values_of(NewEvaluationSerializer, request, self.get_serializer_context())
        values.pop("project", None)
        made = services.evaluation_create(project=wanted_project(request), user=user_of(request), **values)
        return Response(EvaluationSerializer(made).data, status=status.HTTP_201_CREATED)

    def perform_destroy(self, instance: Evaluation) -> None:
        """With everything that was said; 409 while it runs."""
        services.evaluation_delete(evaluation=instance, user=user_of(self.request))

    @extend_schema(request=None, responses=EvaluationSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Ends it; what was answered is kept."""
        services.evaluation_stop(evaluation=self.get_object(), user=user_of(request))
        return Response(EvaluationSerializer(self.get_object()).data)

    @extend_schema(request=ResumeSerializer, responses=EvaluationSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Goes on where it was stopped, failed or lost."""
        values = values_of(ResumeSerializer, request, self.get_serializer_context())
        services.evaluation_resume(evaluation=self.get_object(), user=user_of(request), **values)
        return Response(EvaluationSerializer(self.get_object()).data)

    @extend_schema(
        parameters=[
            OpenApiParameter("verdict", OpenApiTypes.STR, enum=list(VERDICTS)), OpenApiParameter("search", OpenApiTypes.STR),
        ],
        responses=ProblemSerializer(many=True),
    )
    @action(detail=True, pagination_class=ByRow, filterset_class=None)
    def problems(self, request: Request, pk: str) -> Response:
        """How each problem was judged, in the order of the data."""
        verdict = request.query_params.get("verdict", "")
        if verdict and verdict not in VERDICTS:
            raise serializers.ValidationError({"verdict": f"One of {', '.join(VERDICTS)}."})
        text = request.query_params.get("search", "")
        found = selectors.evaluation_problems(self.get_object(), verdict=verdict, text=text)
        page: Any = self.paginate_queryset(found.defer("samples"))
        return self.get_paginated_response(ProblemSerializer(page, many=True).data)

    @extend_schema(responses=OneProblemSerializer)
    @action(detail=True, url_path=r"problems/(?P<row>\d{1,9})")
    def problem(self, request: Request, pk: str, row: str) -> Response:
        """One problem: what each sample said, what was found in it, and why it was scored so."""
        found = selectors.evaluation_problem(self.get_object(), int(row))
        if found is None:
            raise Http404("There is no such problem.")
        return Response(found)

    @extend_schema(responses=MatrixSerializer, parameters=[OpenApiParameter("project", OpenApiTypes.STR)])
    @action(detail=False, pagination_class=None, filterset_class=None)
    def matrix(self, request: Request) -> Response:
        """Models against benchmarks, the newest result of each, with the published figures."""
        project = wanted_project(request, role=Role.VIEWER)
        return Response(MatrixSerializer(selectors.evaluation_matrix(user=user_of(request), project=project)).data)

    def get_queryset(self) -> QuerySet[Evaluation]:
        return super().get_queryset().order_by("-id")
