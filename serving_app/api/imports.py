"""`/api/v1/imported-models/`: what lies under R1_MODELS, look at one, approve and import it, take it off the list."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from model_core.errors import CheckpointError
from model_core.published.template import rendered
from r1platform.api import ProjectViewSet, wanted_project
from serving_app import selectors, services
from serving_app.model_directories import looked
from serving_app.models import ImportedModel
from serving_app.services.imports import engines_refusing

PROJECT = OpenApiParameter("project", str, description="Id or slug; not needed by who has one only.")


class ImportedModelSerializer(serializers.ModelSerializer[ImportedModel]):
    node = serializers.CharField(source="node.name", allow_null=True, default=None, read_only=True)
    files = serializers.ListField(child=serializers.ListField(), help_text="Name, bytes and SHA-256 of each.", read_only=True)
    refused_by = serializers.DictField(child=serializers.CharField(), help_text="Engines that cannot serve it.", read_only=True)

    class Meta:
        model = ImportedModel
        fields = [
            "id", "project", "name", "state", "state_reason", "progress", "node", "architecture", "model_type", "num_parameters",
            "stored_as", "context", "num_bytes", "files", "sha256", "chat_template", "chat_template_sha256", "refused_by",
            "approved_by", "approved_at",
        ]  # fmt: skip
        read_only_fields = fields


class RefusedSerializer(serializers.Serializer[Any]):
    """One reason against it."""

    field = serializers.CharField(help_text="files, config, tokenizer, weights or chat_template.")
    message = serializers.CharField()


class ModelFoundSerializer(serializers.Serializer[Any]):
    """A directory under R1_MODELS; without refusals it can be imported."""

    name = serializers.CharField()
    architecture = serializers.CharField(source="published.architecture")
    model_type = serializers.CharField(source="published.model_type")
    num_parameters = serializers.IntegerField(source="published.num_parameters")
    stored_as = serializers.CharField(source="published.stored_as")
    context = serializers.IntegerField(  # type: ignore[assignment]
        source="published.context", help_text="0: config.json does not say."
    )
    num_bytes = serializers.IntegerField(source="published.num_bytes")
    refusals = RefusedSerializer(source="published.refusals", many=True)
    imported_model = serializers.IntegerField(source="imported.pk", allow_null=True, default=None)


class LookedSerializer(serializers.Serializer[Any]):
    """What is to be looked at before it is approved."""

    name = serializers.CharField()
    files = serializers.DictField(child=serializers.IntegerField(), help_text="Bytes by name.")
    chat_template = serializers.CharField()
    chat_template_sha256 = serializers.CharField(help_text="Send this to approve it.")
    example = serializers.CharField(help_text="A conversation as the template writes it; empty when it cannot.")
    refusals = RefusedSerializer(many=True)
    refused_by = serializers.DictField(child=serializers.CharField(), help_text="Engines that cannot serve it.")


class NewImportSerializer(serializers.Serializer[Any]):
    """The directory, and the digest of the chat template that you looked at: by it you approve it."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    name = serializers.CharField(max_length=200)
    chat_template_sha256 = serializers.CharField(max_length=64)


class ImportedModels(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Models of others that a person has approved."""

    queryset = ImportedModel.objects.filter(removed_at=None).select_related("node")
    serializer_class = ImportedModelSerializer
    filterset_fields = ["project", "state", "name"]
    lookup_value_regex = r"\d{1,17}"

    @extend_schema(request=NewImportSerializer, responses={201: ImportedModelSerializer})
    def create(self, request: Request) -> Response:
        """Approves and imports a directory; its files are being hashed when this returns."""
        serializer = NewImportSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        made = services.import_create(
            project=wanted_project(request), user=_user(request), name=values["name"],
            chat_template_sha256=values["chat_template_sha256"],
        )  # fmt: skip
        return Response(ImportedModelSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Takes it off the list; its files stay. Refused while a deployment serves it."""
        services.import_remove(imported=self.get_object(), user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(parameters=[PROJECT], responses=ModelFoundSerializer(many=True))
    @action(detail=False, pagination_class=None, filterset_fields=None)
    def found(self, request: Request) -> Response:
        """Every directory under R1_MODELS, with what stands against it."""
        return Response(ModelFoundSerializer(selectors.models_found(project=wanted_project(request)), many=True).data)

    @extend_schema(
        parameters=[PROJECT, OpenApiParameter("name", str, OpenApiParameter.PATH)], responses=LookedSerializer
    )
    @action(detail=False, url_path=r"found/(?P<name>[^/]{1,200})", pagination_class=None, filterset_fields=None)
    def look(self, request: Request, name: str) -> Response:
        """One directory: its files, its chat template, and a conversation written by it."""
        wanted_project(request)
        found = looked(name)
        refusals = [{"field": one.field, "message": one.message} for one in found.refusals]
        example = ""
        try:
            example = rendered(found.template, found.special) if found.template else ""
        except CheckpointError as error:
            refusals.append({"field": error.field, "message": error.message})
        told = {"name": name, "files": found.files, "chat_template": found.template, "example": example, "refusals": refusals,
                "chat_template_sha256": found.template_sha256, "refused_by": engines_refusing(found)}  # fmt: skip
        return Response(LookedSerializer(told).data)


def _user(request: Request) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
