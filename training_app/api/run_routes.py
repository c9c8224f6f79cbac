"""`/api/v1/runs/{id}/routes/`: which experts the tokens of a text are sent to."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from training_app.api.fields import CheckpointField, user_of, values_of
from training_app.api.run_rollouts import PLAIN
from training_app.models import Checkpoint, RoutedText
from training_app.routes import route_answer, route_ask


class NewRouteSerializer(serializers.Serializer[Any]):
    checkpoint = CheckpointField(queryset=Checkpoint.objects.none())
    prompt = serializers.CharField(max_length=20_000, trim_whitespace=False)
    completion = serializers.CharField(max_length=20_000, required=False, allow_blank=True, trim_whitespace=False)


class RoutedTextSerializer(serializers.ModelSerializer[RoutedText]):
    class Meta:
        model = RoutedText
        fields = ["id", "run", "checkpoint", "prompt", "completion", "created_at"]
        read_only_fields = fields


class DomainSerializer(serializers.Serializer[Any]):
    domain = serializers.CharField(help_text="Task of the counted answers; “this text” is the one that was asked for.")
    num_texts = serializers.IntegerField()
    num_tokens = serializers.IntegerField()
    loads = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()), help_text="Layers, then experts.")


class RouteSerializer(RoutedTextSerializer):
    state = serializers.ChoiceField(choices=["working", "done", "failed"])
    error = serializers.CharField(allow_blank=True)
    tokens = serializers.ListField(child=serializers.CharField(), required=False)
    experts = serializers.ListField(child=serializers.ListField(), required=False, help_text="Layers, tokens, chosen experts.")
    weights = serializers.ListField(child=serializers.ListField(), required=False)
    entropy = serializers.ListField(child=serializers.ListField(), required=False, help_text="1: undecided.")
    num_experts = serializers.IntegerField(required=False)
    domains = DomainSerializer(many=True, required=False)

    class Meta(RoutedTextSerializer.Meta):
        fields = [*RoutedTextSerializer.Meta.fields, "state", "error", "tokens", "experts", "weights", "entropy", "num_experts",
                  "domains"]  # fmt: skip


class RouteReadings(GenericViewSet[Any]):
    """Actions of a run about routing."""

    @extend_schema(responses=RoutedTextSerializer(many=True))
    @action(**PLAIN)
    def routes(self, request: Request, pk: str) -> Response:
        """Texts that were asked for, the newest 50."""
        return Response(RoutedTextSerializer(self.get_object().routed_texts.order_by("-id")[:50], many=True).data)

    @extend_schema(request=NewRouteSerializer, responses={201: RoutedTextSerializer})
    @routes.mapping.post
    def route_create(self, request: Request, pk: str) -> Response:
        """Asks a checkpoint of the run; the answer comes within seconds, see the next."""
        run, values = self.get_object(), values_of(NewRouteSerializer, request, self.get_serializer_context())
        made = route_ask(run=run, user=user_of(request), **values)
        return Response(RoutedTextSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[OpenApiParameter("route_id", int, OpenApiParameter.PATH)], responses=RouteSerializer)
    @action(**PLAIN, url_path=r"routes/(?P<route_id>\d{1,17})")
    def route(self, request: Request, pk: str, route_id: str) -> Response:
        """One of them with its answer: experts, weights and entropy of each token by layer, loads by domain."""
        routed = get_object_or_404(self.get_object().routed_texts, pk=int(route_id))
        return Response({**RoutedTextSerializer(routed).data, **route_answer(routed)})
