"""`/api/v1/engines/`: what can serve a model here, and the schema of its settings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from model_core.serving.engines import ENGINES


class EngineSerializer(serializers.Serializer[Any]):
    """One engine; `missing` says why it cannot be used on this machine, and is empty when it can."""

    name = serializers.CharField()
    title = serializers.CharField()
    missing = serializers.CharField(allow_blank=True)
    schema = serializers.DictField()


class Engines(viewsets.ViewSet):
    """Engines, one file each in `model_core/serving/engines`."""

    @extend_schema(responses=EngineSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every engine with the JSON schema of its settings."""
        return Response([_engine(name, engine) for name, engine in ENGINES.items()])


def _engine(name: str, engine: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": str(engine.title),
        "missing": engine().installed() or "",
        "schema": engine.Config.model_json_schema(),
    }
