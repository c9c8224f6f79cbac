"""What can be chosen and set: phases and rewards with the JSON schema of their settings."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from model_core.config import RunConfig
from model_core.phases import PHASES
from model_core.rewards import REWARDS


class ThingSerializer(serializers.Serializer[Any]):
    """One file of a registry."""

    name = serializers.CharField()
    title = serializers.CharField()
    description = serializers.CharField()
    schema = serializers.DictField(help_text="JSON schema of its settings.")


class PhaseSerializer(ThingSerializer):
    needs = serializers.DictField(help_text="Which inputs it takes: required, optional or no; any_source: one of the checkpoints.")
    run_schema = serializers.DictField(help_text="JSON schema of a whole run's configuration.")


class Phases(viewsets.ViewSet):
    """Phases of training that a run can be."""

    @extend_schema(responses=PhaseSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every phase with its settings."""
        run_schema = RunConfig.model_json_schema()
        return Response(
            [
                {"name": name, "title": cls.title, "description": cls.describe, "needs": cls.needs,
                 "schema": cls.Config.model_json_schema(), "run_schema": run_schema}
                for name, cls in PHASES.items()
            ]
        )  # fmt: skip


class Rewards(viewsets.ViewSet):
    """Components that a reward can be made of."""

    @extend_schema(responses=ThingSerializer(many=True))
    def list(self, request: Request) -> Response:
        """Every component with its settings."""
        return Response(
            [
                {"name": name, "title": name.replace("_", " ").capitalize(),
                 "description": " ".join((cls.__doc__ or "").split()), "schema": cls.Config.model_json_schema()}
                for name, cls in REWARDS.items()
            ]
        )  # fmt: skip
