"""`/api/v1/usage/`: what was used in a project, by model, key and day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import wanted_project
from r1platform.filters import moment
from r1platform.models import Role
from serving_app.selectors import usage_rows, usage_summary

DEFAULT = timedelta(days=30)


@extend_schema_serializer(many=False)
class UsageSerializer(serializers.Serializer[Any]):
    """Sums of requests, tokens, seconds, and dollars by the price at the time of each request."""

    total = serializers.DictField()
    by_model = serializers.ListField(child=serializers.DictField())
    by_key = serializers.ListField(child=serializers.DictField())
    by_user = serializers.ListField(child=serializers.DictField())
    by_day = serializers.ListField(child=serializers.DictField())


@extend_schema_serializer(many=False)
class UsageRowsSerializer(serializers.Serializer[Any]):
    """The same sums for each day, model, key and user."""

    rows = serializers.ListField(child=serializers.DictField())


_PARAMETERS = [
    OpenApiParameter("project", str, description="Id or slug."),
    OpenApiParameter("since", str, description="A date or a time; by default 30 days ago."),
]


class Usage(viewsets.ViewSet):
    """Requests through the gateway and the playground."""

    @extend_schema(parameters=_PARAMETERS, responses=UsageSerializer)
    def list(self, request: Request) -> Response:
        """What was used since a time."""
        assert isinstance(request.user, User), "the permission class lets nobody else through"
        project = wanted_project(request, role=Role.VIEWER)
        return Response(usage_summary(project=project, user=request.user, since=_since(request)))

    @extend_schema(parameters=_PARAMETERS, responses=UsageRowsSerializer)
    @action(detail=False)
    def rows(self, request: Request) -> Response:
        """What was used since a time by day, model, key and user: what the page exports."""
        assert isinstance(request.user, User), "the permission class lets nobody else through"
        project = wanted_project(request, role=Role.VIEWER)
        return Response({"rows": list(usage_rows(project=project, user=request.user, since=_since(request)))})


def _since(request: Request) -> datetime:
    given = request.query_params.get("since", "")
    if not given:
        return timezone.now() - DEFAULT
    return moment("since", given)
