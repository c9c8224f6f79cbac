"""`/api/v1/datasets/`, `/uploads/` and `/dataset-versions/`, and what a preparation can be made of."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from model_core.filters import FILTERS
from model_core.sources import SOURCES
from model_core.tasks import TASKS
from r1platform.access import for_user
from r1platform.api import ProjectViewSet, wanted_project
from r1platform.models import Role
from training_app import selectors, services
from training_app.api.fields import query_number, user_of, values_of
from training_app.models import Dataset, DatasetKind, DatasetVersion, PhaseRun, Upload


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    class Meta:
        model = Dataset
        fields = ["id", "project", "name", "kind", "description", "created_at"]
        read_only_fields = fields


class NewDatasetSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(choices=DatasetKind.choices, required=False)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class UploadSerializer(serializers.ModelSerializer[Upload]):
    class Meta:
        model = Upload
        fields = ["id", "project", "file_name", "format", "size_bytes", "sha256", "columns", "preview", "benchmark", "created_at"]
        read_only_fields = fields


class NewUploadSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(required=False, help_text="Id or slug.")
    file = serializers.FileField(help_text="JSON Lines, CSV, Parquet or text; all but Parquet also packed with gzip or Zstandard.")
    benchmark = serializers.CharField(
        required=False, allow_blank=True, max_length=60, help_text="Name of the benchmark whose questions it has: gsm8k …"
    )


class BenchmarkNameSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(allow_blank=True, max_length=60, help_text="Small letters, digits, - and _; empty: it is none.")


class BenchmarkFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    file_name = serializers.CharField()
    size_bytes = serializers.IntegerField()
    sha256 = serializers.CharField(help_text="Empty for files of the operator's directory.")
    upload = serializers.IntegerField(allow_null=True, help_text="The upload that it is; null for the operator's files.")


class VersionSerializer(serializers.ModelSerializer[DatasetVersion]):
    class Meta:
        model = DatasetVersion
        fields = [
            "id", "dataset", "number", "state", "state_reason", "upload", "rollouts_of", "inputs", "config", "manifest", "sha256",
            "num_rows", "num_held_out", "progress", "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class UploadField(serializers.PrimaryKeyRelatedField[Upload]):
    """An upload of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return Upload.objects.none() if request is None else for_user(Upload.objects.all(), request.user)


class RunField(serializers.PrimaryKeyRelatedField[PhaseRun]):
    """A run of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return PhaseRun.objects.none() if request is None else for_user(PhaseRun.objects.all(), request.user)


class NewVersionSerializer(serializers.Serializer[Any]):
    config = serializers.DictField(help_text="Source, mapping, filters, split; see GET sources/ and filters/.")
    upload = UploadField(queryset=Upload.objects.none(), required=False, allow_null=True)
    run = RunField(
        queryset=PhaseRun.objects.none(), required=False, allow_null=True, help_text="Its stored rollouts become rows."
    )


class LookSerializer(serializers.Serializer[Any]):
    """The beginning of a source under some settings."""

    columns = serializers.ListField(child=serializers.CharField())
    preview = serializers.ListField(child=serializers.DictField(), help_text="First rows; values are cut short.")
    num_rows_seen = serializers.IntegerField()
    mapped = serializers.ListField(
        child=serializers.DictField(), help_text="What the first rows become: {row}, or {why} of one that cannot be used."
    )


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField()
    num = serializers.IntegerField()
    examples = serializers.ListField(child=serializers.DictField())


class BadRowsSerializer(serializers.Serializer[Any]):
    num = serializers.IntegerField()
    reasons = ReasonSerializer(many=True)


class StepSerializer(serializers.Serializer[Any]):
    """One filter."""

    filter = serializers.CharField()
    kept = serializers.IntegerField()
    dropped = serializers.IntegerField()
    rewritten = serializers.IntegerField()
    share = serializers.FloatField(allow_null=True, help_text="Rows left behind it, of all that were read.")
    noted = serializers.DictField(child=serializers.IntegerField(), help_text="Rows that it kept and counted by a reason.")
    reasons = ReasonSerializer(many=True)


class LeakSerializer(serializers.Serializer[Any]):
    """One benchmark that the rows were compared with."""

    benchmark = serializers.CharField()
    file_name = serializers.CharField(required=False)
    sha256 = serializers.CharField(required=False)
    upload = serializers.IntegerField(required=False, allow_null=True)
    dropped = serializers.IntegerField(help_text="Rows that share words with its questions.")
    examples = serializers.ListField(child=serializers.DictField())


class ReportSerializer(serializers.Serializer[Any]):
    """What became of the rows; as far as it came, of a version that is prepared or that failed."""

    num_read = serializers.IntegerField()
    num_rows = serializers.IntegerField()
    num_held_out = serializers.IntegerField()
    bad_rows = BadRowsSerializer()
    funnel = StepSerializer(many=True)
    contamination = LeakSerializer(many=True)
    statistics = serializers.DictField()


class PreviewSerializer(serializers.Serializer[Any]):
    rows = serializers.ListField(child=serializers.DictField())
    page = serializers.IntegerField()
    num_pages = serializers.IntegerField()
    num_rows = serializers.IntegerField()


class PartSerializer(serializers.Serializer[Any]):
    """One file of a registry."""

    name = serializers.CharField()
    description = serializers.CharField()
    schema = serializers.DictField(help_text="JSON schema of its settings.")


class SourcePartSerializer(PartSerializer):
    reads = serializers.ListField(child=serializers.CharField(), help_text="What it needs one of: upload, run; or nothing.")
    is_mapped = serializers.BooleanField(help_text="Its rows are finished: they need no mapping.")


class Datasets(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Named sources of text; what they hold is in their versions."""

    queryset = Dataset.objects.select_related("project")
    serializer_class = DatasetSerializer
    filterset_fields = ["project", "name", "kind"]
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewDatasetSerializer, responses={201: DatasetSerializer})
    def create(self, request: Request) -> Response:
        """A dataset without versions."""
        values = values_of(NewDatasetSerializer, request, self.get_serializer_context())
        values.pop("project", None)
        made = services.dataset_create(project=wanted_project(request), user=user_of(request), **values)
        made.refresh_from_db()
        return Response(DatasetSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Deletes a dataset that nothing was trained on."""
        services.dataset_delete(dataset=self.get_object(), user=user_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses=VersionSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def versions(self, request: Request, pk: str) -> Response:
        """Every version, newest first."""
        return Response(VersionSerializer(self.get_object().versions.order_by("-number"), many=True).data)

    @extend_schema(request=NewVersionSerializer, responses={201: VersionSerializer})
    @versions.mapping.post
    def prepare(self, request: Request, pk: str) -> Response:
        """Prepares another version; ask for it until its state is ready."""
        dataset = self.get_object()
        values = values_of(NewVersionSerializer, request, self.get_serializer_context())
        made = services.version_prepare(
            dataset=dataset, user=user_of(request), config=values["config"], upload=values.get("upload"), run=values.get("run")
        )
        return Response(VersionSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=NewVersionSerializer, responses=LookSerializer)
    @action(detail=True, methods=["post"], pagination_class=None, filterset_fields=None)
    def look(self, request: Request, pk: str) -> Response:
        """The first rows under these settings and what the mapping makes of them; nothing is prepared."""
        dataset = self.get_object()
        values = values_of(NewVersionSerializer, request, self.get_serializer_context())
        return Response(services.rows_look(project=dataset.project, **values))


class DatasetVersions(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Preparations of datasets; immutable once they are ready."""

    queryset = DatasetVersion.objects.select_related("dataset__project", "upload", "rollouts_of")
    serializer_class = VersionSerializer
    project_path = "dataset__project"
    filterset_fields = ["dataset", "state", "rollouts_of"]
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(
        parameters=[
            OpenApiParameter("split", str, enum=["train", "held_out"]), OpenApiParameter("page", int),
            OpenApiParameter("page_size", int, description="At most 500."),
        ],
        responses=PreviewSerializer,
    )  # fmt: skip
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def preview(self, request: Request, pk: str) -> Response:
        """Rows of a split, page by page."""
        split = request.query_params.get("split", "train")
        page, size = query_number(request, "page") or 1, query_number(request, "page_size") or 20
        return Response(selectors.version_preview(self.get_object(), split=split, page=page, page_size=size))

    @extend_schema(responses=OpenApiTypes.OBJECT)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def lineage(self, request: Request, pk: str) -> Response:
        """What it was made from and which runs learnt from it."""
        return Response(selectors.version_lineage(self.get_object()))

    @extend_schema(responses=ReportSerializer)
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def report(self, request: Request, pk: str) -> Response:
        """The funnel with examples, rows that could not be used, and what was found of benchmarks."""
        return Response(selectors.version_report(self.get_object()))

    @extend_schema(request=None, responses=VersionSerializer)
    @action(detail=True, methods=["post"])
    def stop(self, request: Request, pk: str) -> Response:
        """Ends a preparation; nothing of it is kept."""
        services.version_stop(version=self.get_object(), user=user_of(request))
        return Response(VersionSerializer(self.get_object()).data)


class Uploads(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Files that people sent."""

    queryset = Upload.objects.select_related("project")
    serializer_class = UploadSerializer
    filterset_fields = ["project", "format", "benchmark"]
    lookup_value_regex = r"\d{1,17}"
    parser_classes = [MultiPartParser]

    @extend_schema(request=NewUploadSerializer, responses={201: UploadSerializer})
    def create(self, request: Request) -> Response:
        """Stores a file and looks at its first rows."""
        project = wanted_project(request)
        values = values_of(NewUploadSerializer, request, self.get_serializer_context())
        file = values["file"]
        made = services.upload_create(
            project=project, user=user_of(request), file_name=file.name, file=file,
            benchmark=values.get("benchmark", ""),
        )  # fmt: skip
        made.refresh_from_db()
        return Response(UploadSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=BenchmarkNameSerializer, responses=UploadSerializer)
    @action(detail=True, methods=["post"], parser_classes=[JSONParser])
    def benchmark(self, request: Request, pk: str) -> Response:
        """Has the contamination filter compare with its questions under this name."""
        upload = self.get_object()
        name = values_of(BenchmarkNameSerializer, request, self.get_serializer_context())["name"]
        services.upload_benchmark_set(upload=upload, user=user_of(request), name=name)
        return Response(UploadSerializer(upload).data)


class BenchmarkFiles(viewsets.ViewSet):
    """Files of questions that the contamination filter can compare with."""

    @extend_schema(
        parameters=[OpenApiParameter("project", str, description="Id or slug.")], responses=BenchmarkFileSerializer(many=True)
    )
    def list(self, request: Request) -> Response:
        """The operator's and the project's own; a project's file goes before the operator's of the same name."""
        files = selectors.benchmark_files(wanted_project(request, role=Role.VIEWER)).values()
        return Response(BenchmarkFileSerializer(files, many=True).data)


class _Parts(viewsets.ViewSet):
    registry: Any

    @extend_schema(responses=PartSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every one with the JSON schema of its settings."""
        return Response([self.told(name, cls) for name, cls in self.registry.items()])

    def told(self, name: str, cls: Any) -> dict[str, Any]:
        return {"name": name, "description": " ".join((cls.__doc__ or "").split()), "schema": cls.Config.model_json_schema()}


class Sources(_Parts):
    """Where the rows of a version can come from."""

    registry = SOURCES

    @extend_schema(responses=SourcePartSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every one with the JSON schema of its settings, and what it reads."""
        return super().list(request)

    def told(self, name: str, cls: Any) -> dict[str, Any]:
        reads = ["upload"] if cls.is_file else []
        reads += ["run"] if name == services.OF_A_RUN else []
        return {**super().told(name, cls), "reads": reads, "is_mapped": getattr(cls, "is_mapped", False)}


class Filters(_Parts):
    """Steps of the funnel."""

    registry = FILTERS


class Tasks(_Parts):
    """Problems that can be generated and verified."""

    registry = TASKS


def register(router: BaseRouter) -> None:
    """Adds them to the platform's router."""
    router.register("datasets", Datasets, basename="dataset")
    router.register("uploads", Uploads, basename="upload")
    router.register("dataset-versions", DatasetVersions, basename="dataset-version")
    router.register("benchmark-files", BenchmarkFiles, basename="benchmark-file")
    router.register("sources", Sources, basename="source")
    router.register("filters", Filters, basename="filter")
    router.register("tasks", Tasks, basename="task")
