"""`/api/v1/runs/` and `/checkpoints/`: create, steer, and everything that a run's page shows."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import ProjectViewSet, wanted_project
from training_app import selectors, services
from training_app.api.comparing import COLUMNAR, RANGE, ComparingRuns, MetricsSerializer, range_of
from training_app.api.datasets import UploadField
from training_app.api.fields import CheckpointField, VersionField, query_number, user_of, values_of
from training_app.api.filters import RunFilter
from training_app.api.run_logs import LogReadings
from training_app.api.run_rollouts import PLAIN, STEP, RolloutReadings
from training_app.api.run_routes import RouteReadings
from training_app.budgets import UNITS, uses_of
from training_app.checkpoint_files import archive, archive_bytes, archive_name, checkpoint_files
from training_app.models import Checkpoint, DatasetVersion, PhaseRun, Upload


class UseSerializer(serializers.Serializer[Any]):
    unit = serializers.ChoiceField(choices=UNITS)
    used = serializers.FloatField()
    limit = serializers.FloatField()
    fraction = serializers.FloatField()
    forecast = serializers.FloatField(
        allow_null=True, help_text="Fraction used after the last step, at the present rate; above 1 the budget ends the run first."
    )


class MeasuredSerializer(serializers.Serializer[Any]):
    """What a gate was decided on."""

    metric = serializers.CharField()
    bound = serializers.ChoiceField(choices=["", "low", "high"], help_text="Which number is compared; empty: the mean.")
    direction = serializers.CharField(help_text="at_least or at_most")
    threshold = serializers.FloatField()
    value = serializers.FloatField(allow_null=True, help_text="The mean.")
    compared = serializers.FloatField(allow_null=True)
    stderr = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    num = serializers.IntegerField(allow_null=True, help_text="Problems that the mean is over.")
    passed = serializers.BooleanField(allow_null=True, help_text="Null: it was not measured, which does not pass.")


class RunSerializer(serializers.ModelSerializer[PhaseRun]):
    gate_measured = MeasuredSerializer(read_only=True, allow_null=True)
    retried_as = serializers.SerializerMethodField(help_text="The run that repeats this one with other settings.")
    budget = serializers.SerializerMethodField(help_text="Each limit with what is used of it, the nearest to its end first.")

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_retried_as(self, run: PhaseRun) -> int | None:
        """None while there is no such run."""
        replaced = getattr(run, "retried_as", None)
        return None if replaced is None else int(replaced.pk)

    @extend_schema_field(UseSerializer(many=True))
    def get_budget(self, run: PhaseRun) -> Any:
        """Of every limit that it has."""
        return UseSerializer(uses_of(run), many=True).data

    class Meta:
        model = PhaseRun
        fields = [
            "id", "project", "name", "phase", "launch", "pipeline_phase", "state", "state_reason", "desired",
            "waiting_reason", "config", "dataset_version", "starts_from", "rollouts_from", "num_processes",
            "budget_device_seconds", "gate_metric", "gate_threshold", "gate_direction", "gate_action", "gate_verdict",
            "gate_measured", "benchmark_data", "retry_of", "retried_as", "result_checkpoint", "budget", "result", "progress",
            "summary", "device_seconds", "num_tokens", "tags", "notes", "created_at", "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class NewRunSerializer(serializers.Serializer[Any]):
    """A single run outside a pipeline."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=120)
    phase = serializers.CharField(max_length=60, help_text="See GET phases/.")
    config = serializers.DictField(required=False, default=dict, help_text="See the schema in GET phases/.")
    dataset_version = VersionField(queryset=DatasetVersion.objects.none(), required=False, allow_null=True)
    starts_from = CheckpointField(queryset=Checkpoint.objects.none(), required=False, allow_null=True)
    rollouts_from = CheckpointField(queryset=Checkpoint.objects.none(), required=False, allow_null=True)
    budget_device_seconds = serializers.FloatField(required=False, allow_null=True)
    benchmark_data = UploadField(
        queryset=Upload.objects.none(), required=False, allow_null=True,
        help_text="The uploaded JSONL file of the benchmark that the gate in `config` names.",
    )  # fmt: skip


class RunPatchSerializer(serializers.Serializer[Any]):
    tags = serializers.ListField(child=serializers.CharField(max_length=40), required=False)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=20_000)


class ReasonSerializer(serializers.Serializer[Any]):
    """Why; it is kept in the history with your name."""

    reason = serializers.CharField(max_length=2000, required=False, allow_blank=True, default="")


class RetrySerializer(ReasonSerializer):
    """Without a configuration the run itself is queued again; with one a new run stands in for it."""

    config = serializers.DictField(
        required=False, allow_null=True,
        help_text="Settings to change, by block: of a block, what is not given stays. The gate cannot be changed.",
    )  # fmt: skip


class RollBackSerializer(serializers.Serializer[Any]):
    checkpoint = CheckpointField(
        queryset=Checkpoint.objects.none(), help_text="One of GET runs/{id}/roll-back-choices/: it becomes the run's result."
    )
    reason = serializers.CharField(max_length=2000, help_text="Kept in the history with your name.")


class OverrideSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=2000, help_text="Kept in the history with your name.")


class CheckpointSerializer(serializers.ModelSerializer[Checkpoint]):
    attempt = serializers.IntegerField(source="attempt.number", read_only=True)

    class Meta:
        model = Checkpoint
        fields = [
            "id",
            "run",
            "attempt",
            "step",
            "metrics",
            "sha256",
            "size_bytes",
            "is_final",
            "created_at",
            "removed_at",
        ]
        read_only_fields = fields


class CheckpointFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    size_bytes = serializers.IntegerField()


class EventSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text="The cursor: ask on with `after`.")
    attempt = serializers.IntegerField()
    seq = serializers.IntegerField()
    time = serializers.FloatField(help_text="Seconds since the epoch.")
    kind = serializers.CharField()
    payload = serializers.DictField()


class EventsSerializer(serializers.Serializer[Any]):
    events = EventSerializer(many=True)
    last_id = serializers.IntegerField()


class ExpertsSerializer(serializers.Serializer[Any]):
    step = serializers.IntegerField(allow_null=True)
    steps = serializers.ListField(child=serializers.IntegerField())
    layers = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()), required=False)
    bias = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()), required=False)
    max_violation = serializers.ListField(child=serializers.FloatField(), required=False)


class ExpertsHistorySerializer(serializers.Serializer[Any]):
    """Columns by step; of `max_violation`, `entropy` and `bias_norm` a row has a number a layer."""

    steps = serializers.ListField(child=serializers.IntegerField())
    num_steps = serializers.IntegerField(help_text="Steps that there are; `steps` has fewer of many.")
    layer = serializers.IntegerField()
    num_layers = serializers.IntegerField()
    max_violation = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    entropy = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField(allow_null=True)), help_text="Of the loads: 1 is even."
    )
    bias_norm = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    load = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()), help_text="Of `layer` by expert.")
    bias = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()), help_text="Of `layer` by expert.")


class Runs(mixins.ListModelMixin, mixins.RetrieveModelMixin, LogReadings, RolloutReadings, RouteReadings, ComparingRuns):
    """Phase runs."""

    queryset = PhaseRun.objects.select_related("project", "retried_as")
    serializer_class = RunSerializer
    filterset_class = RunFilter
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewRunSerializer, responses={201: RunSerializer})
    def create(self, request: Request) -> Response:
        """A single run; it starts as soon as a device is free."""
        values = values_of(NewRunSerializer, request, self.get_serializer_context())
        values.pop("project", None)
        made = services.run_create(project=wanted_project(request), user=user_of(request), **values)
        made.refresh_from_db()
        return Response(RunSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=RunPatchSerializer, responses=RunSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        """Replaces tags or notes."""
        run, values = self.get_object(), values_of(RunPatchSerializer, request, self.get_serializer_context())
        if "tags" in values:
            services.run_tags_set(run=run, user=user_of(request), tags=values["tags"])
        if "notes" in values:
            services.run_notes_set(run=run, user=user_of(request), notes=values["notes"])
        return self._now()

    @extend_schema(request=ReasonSerializer, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Writes a checkpoint and ends."""
        services.run_stop(run=self.get_object(), user=user_of(request), reason=self._reason())
        return self._now()

    @extend_schema(request=ReasonSerializer, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Writes a checkpoint, frees its device and waits to be resumed."""
        services.run_pause(run=self.get_object(), user=user_of(request), reason=self._reason())
        return self._now()

    @extend_schema(request=ReasonSerializer, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Goes on from the last checkpoint."""
        services.run_resume(run=self.get_object(), user=user_of(request), reason=self._reason())
        return self._now()

    @extend_schema(request=RetrySerializer, responses={200: RunSerializer, 201: RunSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """Another attempt of a run that failed, was stopped, lost, or held at its gate; with `config` a new run with other settings
        in its place (201)."""
        run, user = self.get_object(), user_of(request)
        changes = values_of(RetrySerializer, request, self.get_serializer_context()).get("config")
        if changes is None:
            services.run_retry(run=run, user=user, reason=self._reason())
            return self._now()
        made = services.run_retry_changed(run=run, user=user, config=services.changed(run.config, changes))
        made.refresh_from_db()
        return Response(RunSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=RollBackSerializer, responses=RunSerializer)
    @action(detail=True, methods=["post"], url_path="roll-back")
    def roll_back(self, request: Request, pk: str) -> Response:
        """Takes an earlier checkpoint as the result of a run that its gate holds; the pipeline goes on with it."""
        run, values = self.get_object(), values_of(RollBackSerializer, request, self.get_serializer_context())
        services.gate_roll_back(run=run, user=user_of(request), **values)
        return self._now()

    @extend_schema(responses=CheckpointSerializer(many=True))
    @action(**PLAIN, url_path="roll-back-choices")
    def roll_back_choices(self, request: Request, pk: str) -> Response:
        """What the run can be rolled back to: what the phases before it left, then its own earlier checkpoints, best first."""
        return Response(CheckpointSerializer(services.roll_back_choices(self.get_object()), many=True).data)

    @extend_schema(request=None, responses={201: RunSerializer})
    @action(detail=True, methods=["post"])
    def clone(self, request: Request, pk: str) -> Response:
        """A new single run with the same configuration and inputs."""
        made = services.run_clone(run=self.get_object(), user=user_of(request))
        made.refresh_from_db()
        return Response(RunSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=OverrideSerializer, responses=RunSerializer)
    @action(detail=True, methods=["post"], url_path="override-gate")
    def override_gate(self, request: Request, pk: str) -> Response:
        """Lets a run pass that its gate held."""
        run, values = self.get_object(), values_of(OverrideSerializer, request, self.get_serializer_context())
        services.gate_override(run=run, user=user_of(request), reason=values["reason"])
        return self._now()

    @extend_schema(parameters=RANGE, responses=MetricsSerializer)
    @action(**PLAIN, **COLUMNAR)
    def metrics(self, request: Request, pk: str) -> Response:
        """Scalars of any range, with the extremes of what was folded together."""
        return Response(selectors.run_metrics(self.get_object(), **range_of(request)))

    @extend_schema(
        parameters=[
            OpenApiParameter("after", int, description="Cursor: the id of the last event that you have."),
            OpenApiParameter("limit", int, description="At most 1000."),
            OpenApiParameter("kinds", str, description="Kinds, separated by commas; by default all."),
        ],
        responses=EventsSerializer,
    )
    @action(**PLAIN)
    def events(self, request: Request, pk: str) -> Response:
        """What the trainer told, oldest first, as the socket sends it."""
        after, limit = query_number(request, "after") or 0, query_number(request, "limit")
        kinds = [kind for kind in request.query_params.get("kinds", "").split(",") if kind]
        found = selectors.run_events(self.get_object(), after=after, limit=limit or 500, kinds=kinds or None)
        return Response({"events": found, "last_id": found[-1]["id"] if found else after})

    @extend_schema(parameters=[STEP], responses=ExpertsSerializer)
    @action(**PLAIN)
    def experts(self, request: Request, pk: str) -> Response:
        """Loads and routing biases of the experts at one step."""
        return Response(selectors.run_experts(self.get_object(), step=query_number(request, "step")))

    @extend_schema(
        parameters=[OpenApiParameter("layer", int, description="Of those with experts, from 0.")],
        responses=ExpertsHistorySerializer,
    )
    @action(**PLAIN, url_path="experts/history")
    def experts_history(self, request: Request, pk: str) -> Response:
        """Balance of every layer, loads and biases of one, over the steps."""
        return Response(selectors.run_experts_history(self.get_object(), layer=query_number(request, "layer") or 0))

    @extend_schema(responses=CheckpointSerializer(many=True))
    @action(**PLAIN)
    def checkpoints(self, request: Request, pk: str) -> Response:
        """Every checkpoint, newest first; `removed_at` says which are gone from disk."""
        return Response(CheckpointSerializer(selectors.run_checkpoints(self.get_object()), many=True).data)

    def _reason(self) -> str:
        return str(values_of(ReasonSerializer, self.request, self.get_serializer_context())["reason"])

    def _now(self) -> Response:
        return Response(RunSerializer(self.get_object()).data)


class Checkpoints(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Complete checkpoints; paths are not told, they are the platform's own."""

    queryset = Checkpoint.objects.select_related("run__project", "attempt__node")
    serializer_class = CheckpointSerializer
    project_path = "run__project"
    filterset_fields = {"run": ["exact"], "step": ["exact"], "is_final": ["exact"], "removed_at": ["isnull"]}
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Checkpoint]:
        return super().get_queryset().order_by("-id")

    @extend_schema(responses=CheckpointFileSerializer(many=True))
    @action(**PLAIN)
    def files(self, request: Request, pk: str) -> Response:
        """The files of its Hugging Face directory."""
        return Response(CheckpointFileSerializer(checkpoint_files(self.get_object()), many=True).data)

    @extend_schema(responses={(200, "application/x-tar"): OpenApiTypes.BINARY})
    @action(**PLAIN)
    def download(self, request: Request, pk: str) -> StreamingHttpResponse:
        """The directory as a tar: config, tokenizer and weights in safetensors."""
        checkpoint = self.get_object()
        files, folder = checkpoint_files(checkpoint), archive_name(checkpoint)
        answer = StreamingHttpResponse(archive(files, folder), content_type="application/x-tar")
        answer["Content-Length"] = str(archive_bytes(files, folder))
        answer["Content-Disposition"] = f'attachment; filename="{folder}.tar"'
        return answer
