"""`/api/v1/operations/`: the queue, what is stuck, and each node's hardware against what the article asks for."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from r1platform.operations import STUCK_KINDS, queue_list, stuck_list
from r1platform.page_data import node_card
from r1platform.selectors import node_list


class QueuedSerializer(serializers.Serializer[Any]):
    """A run that waits; of another project only its place."""

    place = serializers.IntegerField(help_text="1 is next.")
    run = serializers.IntegerField(allow_null=True)
    name = serializers.CharField(allow_blank=True)
    project = serializers.CharField(allow_null=True)
    num_devices = serializers.IntegerField()
    reason = serializers.CharField()
    since = serializers.DateTimeField()


class StuckSerializer(serializers.Serializer[Any]):
    """Something whose keeper is silent, or whose end was asked for and has not come."""

    kind = serializers.ChoiceField(choices=STUCK_KINDS)
    what = serializers.CharField()
    why = serializers.CharField()
    remedy = serializers.CharField(allow_blank=True)
    since = serializers.DateTimeField()
    run = serializers.IntegerField(allow_null=True)
    deployment = serializers.IntegerField(allow_null=True)


class CheckSerializer(serializers.Serializer[Any]):
    """One requirement of the article."""

    label = serializers.CharField()  # type: ignore[assignment]
    found = serializers.IntegerField(allow_null=True, help_text="Bytes; null where there is none or nothing was reported.")
    minimum = serializers.CharField()
    recommended = serializers.CharField()
    words = serializers.CharField(help_text="as recommended, enough, too little, none found, not reported")


class NodeCheckSerializer(serializers.Serializer[Any]):
    node = serializers.CharField(source="node.name")
    state = serializers.ChoiceField(choices=["online", "draining", "silent"])
    checks = CheckSerializer(many=True)


@extend_schema_serializer(many=False)
class OperationsSerializer(serializers.Serializer[Any]):
    queue = QueuedSerializer(many=True)
    stuck = StuckSerializer(many=True)
    nodes = NodeCheckSerializer(many=True)


class OperationsView(viewsets.ViewSet):
    """The platform as its operators look at it; for every user, because devices are everybody's."""

    @extend_schema(responses=OperationsSerializer)
    def list(self, request: Request) -> Response:
        """Now."""
        assert isinstance(request.user, User), "the permission class lets nobody else through"
        told = {
            "queue": queue_list(user=request.user),
            "stuck": stuck_list(user=request.user),
            "nodes": [node_card(node) for node in node_list()],
        }
        return Response(OperationsSerializer(told).data)


def register(router: BaseRouter) -> None:
    """Adds it to the platform's router."""
    router.register("operations", OperationsView, basename="operation")
