"""`/api/v1/costs/`: device-time and dollars of training in a project, with the forecast and the published figures."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.api import wanted_project
from r1platform.models import Role
from training_app import selectors
from training_app.api.fields import query_number, user_of

MAX_DAYS = 3650


class RunCostSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="pk")
    name = serializers.CharField()
    phase = serializers.CharField()
    launch = serializers.IntegerField(source="launch_id", allow_null=True)
    device_seconds = serializers.FloatField()
    dollars = serializers.FloatField(source="cost", allow_null=True, help_text="null: the run was launched without a price.")
    tokens = serializers.IntegerField(source="num_tokens")


@extend_schema_serializer(many=False)
class CostSerializer(serializers.Serializer[Any]):
    """Device-seconds and dollars; dollars are at the price that a run was launched with."""

    total = serializers.DictField()
    evaluation_seconds = serializers.FloatField()
    phases = serializers.ListField(child=serializers.DictField())
    pipelines = serializers.ListField(child=serializers.DictField())
    runs = RunCostSerializer(many=True)
    days = serializers.ListField(child=serializers.DictField())
    forecast = serializers.DictField()
    article = serializers.ListField(child=serializers.DictField())
    papers = serializers.ListField(child=serializers.DictField())


class Costs(viewsets.ViewSet):
    """What training has cost."""

    @extend_schema(
        parameters=[
            OpenApiParameter("project", OpenApiTypes.STR), OpenApiParameter("days", OpenApiTypes.INT, description="30 by default."),
            OpenApiParameter("price", OpenApiTypes.FLOAT, description="Dollars a device-hour of runs launched without a price."),
        ],
        responses=CostSerializer,
    )  # fmt: skip
    def list(self, request: Request) -> Response:
        """By phase, pipeline, run and day, with the forecast."""
        project = wanted_project(request, role=Role.VIEWER)
        days = min(query_number(request, "days") or 30, MAX_DAYS)
        price = selectors.price_given(request.query_params.get("price", ""))
        since = timezone.now() - dt.timedelta(days=days)
        report = selectors.cost_report(user=user_of(request), project=project, since=since, price=price)
        return Response(CostSerializer(report).data)
