"""`/api/v1/presets/`: system prompts and parameters by name, one's own and those shared with the project."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import ProjectViewSet, wanted_project
from r1platform.models import Role
from serving_app import selectors, services
from serving_app.models import Preset


class PresetSerializer(serializers.ModelSerializer[Preset]):
    parameters = serializers.DictField(required=False)

    class Meta:
        model = Preset
        fields = ["id", "project", "user", "name", "is_shared", "system_prompt", "parameters", "created_at"]
        read_only_fields = ["project", "user", "created_at"]


class Presets(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Presets that the caller may use; only their own can be deleted."""

    queryset = Preset.objects.all()
    serializer_class = PresetSerializer
    filterset_fields = ["project", "is_shared"]
    write_role = Role.VIEWER
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Preset]:
        if getattr(self, "swagger_fake_view", False):
            return Preset.objects.none()
        return selectors.preset_list(user=_user(self.request))

    @extend_schema(responses={201: PresetSerializer})
    def create(self, request: Request) -> Response:
        """A preset of one's own."""
        serializer = PresetSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        project = wanted_project(request, role=Role.VIEWER)
        values: dict[str, Any] = dict(serializer.validated_data)
        made = services.preset_create(project=project, user=_user(request), **values)
        return Response(PresetSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        """Deletes a preset of one's own."""
        found = get_object_or_404(self.get_queryset().filter(user=_user(request)), pk=pk)
        services.preset_delete(preset=found, user=_user(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _user(request: Any) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
