"""Several runs side by side: `/api/v1/runs/metrics/` and `/api/v1/runs/compare/`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import ProjectViewSet
from r1platform.columns import ColumnsRenderer
from training_app import selectors
from training_app.api.fields import query_number
from training_app.models import PhaseRun
from training_app.selectors.comparing import MAX_RUNS
from training_app.selectors.metrics import COLUMNS, MAX_BUCKETS, MAX_BUCKETS_IN_ALL

RUNS = OpenApiParameter("runs", str, required=True, description=f"Ids of runs, separated by commas; at most {MAX_RUNS}.")
RANGE = [
    OpenApiParameter("names", str, description="Series, separated by commas; by default all."),
    OpenApiParameter("from", int, description="First step."),
    OpenApiParameter("to", int, description="Last step."),
    OpenApiParameter(
        "buckets", int,
        description=f"At most so many buckets a series; by default {MAX_BUCKETS}. An answer has at most {MAX_BUCKETS_IN_ALL} in "
        "all, so of many series each has fewer.",
    ),
]  # fmt: skip
PLAIN: dict[str, Any] = {"pagination_class": None, "filterset_fields": None}
COLUMNAR: dict[str, Any] = {
    "filterset_class": None, "queryset": PhaseRun.objects.only("pk"), "renderer_classes": [ColumnsRenderer],
}  # fmt: skip
"""Of a run nothing is read but that it may be seen: the configurations of fifty take as long as their points."""


class SeriesSerializer(serializers.Serializer[Any]):
    """Columns of equal length, a row a bucket; those that were not asked for are not there."""

    name = serializers.CharField()
    unit = serializers.CharField(allow_blank=True)
    x = serializers.ListField(child=serializers.IntegerField(), required=False, help_text="Newest step of the bucket.")
    last = serializers.ListField(child=serializers.FloatField(allow_null=True), required=False, help_text="Value at that step.")
    min = serializers.ListField(child=serializers.FloatField(allow_null=True), required=False, help_text="Exact, not sampled.")
    max = serializers.ListField(child=serializers.FloatField(allow_null=True), required=False, help_text="Exact, not sampled.")
    n = serializers.ListField(child=serializers.IntegerField(), required=False, help_text="Points.")
    nonfinite = serializers.ListField(child=serializers.IntegerField(), required=False, help_text="Points that are no number.")
    time = serializers.ListField(child=serializers.FloatField(), required=False, help_text="Seconds since the epoch.")
    tokens = serializers.ListField(child=serializers.IntegerField(), required=False)
    process_seconds = serializers.ListField(child=serializers.FloatField(), required=False)


class MetricsSerializer(serializers.Serializer[Any]):
    series = SeriesSerializer(many=True)
    width = serializers.IntegerField(help_text="Steps that a bucket holds.")
    last_event_id = serializers.IntegerField()


class RunMetricsSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    series = SeriesSerializer(many=True)


class ManyMetricsSerializer(serializers.Serializer[Any]):
    runs = RunMetricsSerializer(many=True)
    width = serializers.IntegerField(help_text="Steps that a bucket holds.")


class ComparedRunSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    phase = serializers.CharField()
    state = serializers.CharField()


class ComparedSettingSerializer(serializers.Serializer[Any]):
    path = serializers.CharField()
    values = serializers.ListField(help_text="One a run, in their order; null where it has no such setting.")


class ComparedValueSerializer(serializers.Serializer[Any]):
    last = serializers.FloatField(allow_null=True)
    best = serializers.FloatField(allow_null=True, help_text="Null where nobody can say whether more or less is better.")
    min = serializers.FloatField(allow_null=True)
    max = serializers.FloatField(allow_null=True)


class ComparedMeasureSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    unit = serializers.CharField(allow_blank=True)
    better = serializers.ChoiceField(choices=["higher", "lower", ""], help_text="Empty: neither is better by itself.")
    values = ComparedValueSerializer(many=True, help_text="One a run, in their order; null where it did not measure it.")


class ComparisonSerializer(serializers.Serializer[Any]):
    runs = ComparedRunSerializer(many=True)
    settings = ComparedSettingSerializer(many=True, help_text="Those in which the runs differ.")
    measures = ComparedMeasureSerializer(many=True)


class ComparingRuns(ProjectViewSet):
    """What a caller may ask of several runs at once."""

    @extend_schema(
        operation_id="runs_metrics_of_many",
        parameters=[
            RUNS,
            *RANGE,
            OpenApiParameter("columns", str, description=f"Of {', '.join(COLUMNS)}, separated by commas; by default all."),
        ],
        responses=ManyMetricsSerializer,
    )
    @action(**PLAIN, **COLUMNAR, detail=False, url_path="metrics")
    def metrics_of_many(self, request: Request) -> Response:
        """Scalars of any range of several runs, all in buckets of the same steps."""
        columns = words_of(request, "columns")
        if columns is not None and not set(columns) <= set(COLUMNS):
            raise ValidationError({"columns": f"There are {', '.join(COLUMNS)}."})
        return Response(selectors.runs_metrics(self._wanted(request), **range_of(request), columns=columns))

    @extend_schema(parameters=[RUNS], responses=ComparisonSerializer)
    @action(**PLAIN, detail=False)
    def compare(self, request: Request) -> Response:
        """The settings in which runs differ, and last and best value of what each measured."""
        return Response(selectors.runs_comparison(self._wanted(request)))

    def _wanted(self, request: Request) -> list[PhaseRun]:
        """Raises ValidationError, and NotFound for a run that is not the caller's to see."""
        try:
            ids = selectors.run_ids_of(request.query_params.get("runs", ""))
        except ValueError as error:
            raise ValidationError({"runs": str(error)}) from None
        found: dict[int, PhaseRun] = {run.pk: run for run in self.get_queryset().filter(pk__in=ids)}
        if missing := [pk for pk in ids if pk not in found]:
            raise NotFound(f"There is no run {missing[0]}.")
        return [found[pk] for pk in ids]


def range_of(request: Request) -> dict[str, Any]:
    """What `RANGE` describes, as the selectors take it. Raises ValidationError."""
    asked = query_number(request, "buckets")
    return {
        "names": words_of(request, "names"), "x_from": query_number(request, "from"), "x_to": query_number(request, "to"),
        "max_buckets": min(asked, MAX_BUCKETS_IN_ALL) if asked else MAX_BUCKETS,
    }  # fmt: skip


def words_of(request: Request, name: str) -> list[str] | None:
    """The words of a list separated by commas; None where there is none."""
    return [word for word in request.query_params.get(name, "").split(",") if word] or None
