"""What `/api/v1/runs/{id}/log/` reads: a part of the log, its lines that hold a text, the whole of it."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from r1platform.lib.pieces import pieces
from training_app import selectors
from training_app.api.fields import query_number
from training_app.api.run_rollouts import PLAIN


class RunLogSerializer(serializers.Serializer[Any]):
    attempt = serializers.IntegerField(allow_null=True)
    text = serializers.CharField()
    offset = serializers.IntegerField(help_text="Byte at which the text begins.")
    next_offset = serializers.IntegerField()
    size = serializers.IntegerField()


class LogLineSerializer(serializers.Serializer[Any]):
    offset = serializers.IntegerField(help_text="Byte of the log at which it begins.")
    text = serializers.CharField()


class LogSearchSerializer(serializers.Serializer[Any]):
    attempt = serializers.IntegerField(allow_null=True)
    lines = LogLineSerializer(many=True)
    num_found = serializers.IntegerField(help_text="All of them; the newest 1000 are in `lines`.")
    num_searched = serializers.IntegerField(help_text="Bytes from the end that were searched.")
    size = serializers.IntegerField()


class LogReadings(GenericViewSet[Any]):
    """Actions of a run that read what its processes have printed."""

    @extend_schema(
        parameters=[
            OpenApiParameter("attempt", int, description="By default the newest."),
            OpenApiParameter("offset", int, description="Where to read on; by default the newest part."),
            OpenApiParameter("before", int, description="Without an offset: the lines that end at this byte."),
        ],
        responses=RunLogSerializer,
    )
    @action(**PLAIN)
    def log(self, request: Request, pk: str) -> Response:
        """What the trainer's processes have printed."""
        attempt, offset = query_number(request, "attempt"), query_number(request, "offset")
        before = query_number(request, "before")
        return Response(selectors.run_log(self.get_object(), attempt=attempt, offset=offset, before=before))

    @extend_schema(
        parameters=[OpenApiParameter("attempt", int, description="By default the newest.")],
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )
    @action(**PLAIN, url_path="log/download")
    def log_download(self, request: Request, pk: str) -> StreamingHttpResponse:
        """The whole log as it is now."""
        path = selectors.run_log_path(self.get_object(), attempt=query_number(request, "attempt"))
        size = path.stat().st_size
        answer = StreamingHttpResponse(pieces(path, size), content_type="text/plain; charset=utf-8")
        answer["Content-Length"] = str(size)
        answer["Content-Disposition"] = f'attachment; filename="run-{pk}-attempt-{path.parent.name}.log"'
        return answer

    @extend_schema(
        parameters=[
            OpenApiParameter("q", str, description="What a line has to hold, whatever its case."),
            OpenApiParameter("rank", int, description="Lines of one rank only; a run of one process marks none."),
            OpenApiParameter("attempt", int, description="By default the newest."),
        ],
        responses=LogSearchSerializer,
    )
    @action(**PLAIN, url_path="log/search")
    def log_search(self, request: Request, pk: str) -> Response:
        """Lines of the whole log that hold a text, with where they stand."""
        attempt, rank = query_number(request, "attempt"), query_number(request, "rank")
        text = request.query_params.get("q", "")[:200]
        return Response(selectors.run_log_search(self.get_object(), text=text, attempt=attempt, rank=rank))
