"""What `/api/v1/runs/{id}/` reads of stored rollouts: a step, a prompt over the steps, the reward under other weights."""

from __future__ import annotations

import math
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from training_app import selectors
from training_app.api.fields import query_number

STEP = OpenApiParameter("step", int, description="By default the newest.")
PLAIN: dict[str, Any] = {"detail": True, "pagination_class": None, "filterset_fields": None}


class RolloutsSerializer(serializers.Serializer[Any]):
    step = serializers.IntegerField(allow_null=True)
    steps = serializers.ListField(child=serializers.IntegerField())
    groups = serializers.ListField(child=serializers.DictField())


class FoundSerializer(serializers.Serializer[Any]):
    step = serializers.IntegerField()
    group = serializers.DictField(help_text="As in GET runs/{id}/rollouts/.")


class PromptSerializer(serializers.Serializer[Any]):
    prompt = serializers.CharField()
    answer = serializers.CharField(allow_null=True)
    found = FoundSerializer(many=True)
    num_read = serializers.IntegerField(help_text="Steps that were read; fewer than there are when they are many.")
    num_steps = serializers.IntegerField()


class ReweighedStepSerializer(serializers.Serializer[Any]):
    step = serializers.IntegerField()
    before = serializers.FloatField(allow_null=True, help_text="Mean reward as it was.")
    after = serializers.FloatField(allow_null=True, help_text="Mean reward under the weights.")
    unscored = serializers.IntegerField()
    num_rollouts = serializers.IntegerField()
    num_groups = serializers.IntegerField()
    flat_before = serializers.IntegerField(help_text="Groups whose rewards were all equal.")
    flat_after = serializers.IntegerField()
    other_best = serializers.IntegerField(help_text="Groups in which another completion would be the best.")


class RunRewardsSerializer(serializers.Serializer[Any]):
    weights = serializers.DictField(child=serializers.FloatField())
    components = serializers.ListField(child=serializers.CharField())
    names = serializers.ListField(child=serializers.CharField(), help_text="Of rows and columns of `correlation`.")
    correlation = serializers.ListField(child=serializers.ListField(child=serializers.FloatField(allow_null=True)))
    pairs = serializers.ListField(child=serializers.DictField(), help_text="Those that go together most.")
    steps = ReweighedStepSerializer(many=True)
    examples = serializers.ListField(child=serializers.DictField())
    num_rollouts = serializers.IntegerField()
    num_steps = serializers.IntegerField()
    num_left = serializers.IntegerField(help_text="Steps that there was no time to read; asked again, it goes on with them.")


class RolloutReadings(GenericViewSet[Any]):
    """Actions of a run that read its stored rollouts."""

    @extend_schema(parameters=[STEP], responses=RolloutsSerializer)
    @action(**PLAIN)
    def rollouts(self, request: Request, pk: str) -> Response:
        """The groups of completions of one step with what each reward component gave."""
        return Response(selectors.run_rollouts(self.get_object(), step=query_number(request, "step")))

    @extend_schema(
        parameters=[
            OpenApiParameter("step", int, required=True),
            OpenApiParameter("group", int, required=True, description="Its place in the step's groups, from 0."),
        ],
        responses=PromptSerializer,
    )
    @action(**PLAIN)
    def prompt(self, request: Request, pk: str) -> Response:
        """What was sampled for the prompt of a group at every step that asked it."""
        run, step, group = self.get_object(), query_number(request, "step"), query_number(request, "group")
        missing = {name: "Say which." for name, value in (("step", step), ("group", group)) if value is None}
        if step is None or group is None:
            raise ValidationError(missing)
        return Response(selectors.run_prompt(run, step=step, group=group))

    @extend_schema(
        parameters=[OpenApiParameter("weights", str, description="`name:number`, separated by commas; by default the run's own.")],
        responses=RunRewardsSerializer,
    )
    @action(**PLAIN)
    def rewards(self, request: Request, pk: str) -> Response:
        """How the components of the reward go together, and what the stored rollouts would be worth under other weights."""
        return Response(selectors.run_rewards(self.get_object(), weights=weights_of(request.query_params.get("weights", ""))))


def weights_of(text: str) -> dict[str, float] | None:
    """Weights as an address says them; None when it says none. Raises ValidationError."""
    if not text:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition(":")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise ValidationError({"weights": f"“{part[:60]}” is no name:number."}) from None
    if not all(math.isfinite(value) and abs(value) <= 1e6 for value in found.values()):
        raise ValidationError({"weights": "A weight is a number between -1000000 and 1000000."})
    return found
