"""`/api/v1/datasets/`, `/uploads/` and `/dataset-versions/`, and what a preparation can be made of."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from model_core.filters import FILTERS
from model_core.sources import SOURCES
from model_core.tasks import TASKS
from r1platform.access import for_user
from r1platform.api import ProjectViewSet, wanted_project
from training_app import selectors, services
from training_app.api.fields import query_number, user_of, values_of
from training_app.models import Dataset, DatasetKind, DatasetVersion, Upload


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
        fields = ["id", "project", "file_name", "format", "size_bytes", "sha256", "columns", "preview", "created_at"]
        read_only_fields = fields


class NewUploadSerializer(serializers.Serializer[Any]):
    project = serializers.CharField(required=False, help_text="Id or slug.")
    file = serializers.FileField(help_text="JSON Lines, CSV, Parquet or text; all but Parquet also packed with gzip or Zstandard.")


class VersionSerializer(serializers.ModelSerializer[DatasetVersion]):
    class Meta:
        model = DatasetVersion
        fields = [
            "id", "dataset", "number", "state", "state_reason", "upload", "config", "manifest", "sha256", "num_rows",
            "num_held_out", "progress", "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class UploadField(serializers.PrimaryKeyRelatedField[Upload]):
    """An upload of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        return Upload.objects.none() if request is None else for_user(Upload.objects.all(), request.user)


class NewVersionSerializer(serializers.Serializer[Any]):
    config = serializers.DictField(help_text="Source, mapping, filters, split; see GET sources/ and filters/.")
    upload = UploadField(queryset=Upload.objects.none(), required=False, allow_null=True)


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
            dataset=dataset, user=user_of(request), config=values["config"], upload=values.get("upload")
        )
        return Response(VersionSerializer(made).data, status=status.HTTP_201_CREATED)


class DatasetVersions(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Preparations of datasets; immutable once they are ready."""

    queryset = DatasetVersion.objects.select_related("dataset__project")
    serializer_class = VersionSerializer
    project_path = "dataset__project"
    filterset_fields = ["dataset", "state"]
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
    filterset_fields = ["project", "format"]
    lookup_value_regex = r"\d{1,17}"
    parser_classes = [MultiPartParser]

    @extend_schema(request=NewUploadSerializer, responses={201: UploadSerializer})
    def create(self, request: Request) -> Response:
        """Stores a file and looks at its first rows."""
        values = values_of(NewUploadSerializer, request, self.get_serializer_context())
        file = values["file"]
        made = services.upload_create(
            project=wanted_project(request), user=user_of(request), file_name=file.name, file=file
        )
        made.refresh_from_db()
        return Response(UploadSerializer(made).data, status=status.HTTP_201_CREATED)


class _Parts(viewsets.ViewSet):
    registry: Any

    @extend_schema(responses=PartSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every one with the JSON schema of its settings."""
        return Response(
            [
                {"name": name, "description": " ".join((cls.__doc__ or "").split()), "schema": cls.Config.model_json_schema()}
                for name, cls in self.registry.items()
            ]
        )


class Sources(_Parts):
    """Where the rows of a version can come from."""

    registry = SOURCES


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
    router.register("sources", Sources, basename="source")
    router.register("filters", Filters, basename="filter")
    router.register("tasks", Tasks, basename="task")
