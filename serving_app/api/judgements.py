"""`/api/v1/judgements/`: what people said of answers, its review, the datasets made of it, and the win rates."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from r1platform.access import for_user
from r1platform.api import ProjectViewSet, wanted_project
from r1platform.models import Role
from serving_app import selectors, services
from serving_app.api.serializers import MAX_ID
from serving_app.judged_rows import DEMONSTRATIONS, PAIRS
from serving_app.models import Judgement
from serving_app.states import ReviewState
from training_app.models import Dataset

_PROJECT = OpenApiParameter("project", str, description="Id or slug.")


class JudgementSerializer(serializers.ModelSerializer[Judgement]):
    """A judgement with the texts that it was made of; `value` is 1 for good or better, -1 for bad, 0 for alike."""

    class Meta:
        model = Judgement
        fields = [
            "id", "project", "user", "kind", "value", "reasons", "comment", "message", "other", "deployment", "other_deployment",
            "prompt", "chosen", "rejected", "state", "state_reason", "reviewed_by", "reviewed_at", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class RatingSerializer(serializers.Serializer[Any]):
    """What is said of one answer."""

    value = serializers.IntegerField(min_value=-1, max_value=1, help_text="1 good, -1 bad, 0 takes the rating back.")
    reasons = serializers.ListField(child=serializers.CharField(max_length=40), required=False, max_length=20)
    comment = serializers.CharField(required=False, allow_blank=True)


class RewriteSerializer(serializers.Serializer[Any]):
    """The answer as it should have been."""

    content = serializers.CharField(trim_whitespace=False)
    reasoning = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)


class ChoiceSerializer(serializers.Serializer[Any]):
    """What the answer was compared with."""

    over = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_ID),
        min_length=1,
        max_length=16,
        help_text="Answers to the same message.",
    )
    tie = serializers.BooleanField(required=False, default=False, help_text="All of them are alike.")
    comment = serializers.CharField(required=False, allow_blank=True)


class ReviewSerializer(serializers.Serializer[Any]):
    """What becomes of judgements."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    judgements = serializers.ListField(child=serializers.IntegerField(min_value=1, max_value=MAX_ID), min_length=1, max_length=200)
    state = serializers.ChoiceField(choices=ReviewState.choices)
    reason = serializers.CharField(required=False, allow_blank=True, default="")


class NewJudgedVersionSerializer(serializers.Serializer[Any]):
    """What accepted judgements become, and where: a dataset that is there, or a new one by its name."""

    project = serializers.CharField(required=False, help_text="Id or slug.")
    form = serializers.ChoiceField(choices=[PAIRS, DEMONSTRATIONS])
    dataset = serializers.PrimaryKeyRelatedField(queryset=Dataset.objects.none(), required=False, allow_null=True)
    name = serializers.CharField(required=False, allow_blank=True, max_length=120, default="")
    held_out_fraction = serializers.FloatField(required=False, default=0.1, min_value=0, max_value=0.9)

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        if (request := self.context.get("request")) is not None:
            fields["dataset"].queryset = for_user(Dataset.objects.all(), request.user)  # type: ignore[attr-defined]
        return fields


class MadeVersionSerializer(serializers.Serializer[Any]):
    """The version that is prepared now; follow it under dataset-versions/."""

    id = serializers.IntegerField()
    dataset = serializers.IntegerField(source="dataset_id")
    number = serializers.IntegerField()
    state = serializers.CharField()


class WinRateSerializer(serializers.Serializer[Any]):
    """One pair of models; `rate` is of the first, a tie is half a win of each, the interval is Wilson's at 95 %."""

    first = serializers.CharField(source="first.shown_name")
    second = serializers.CharField(source="second.shown_name")
    wins = serializers.IntegerField()
    losses = serializers.IntegerField()
    ties = serializers.IntegerField()
    rate = serializers.FloatField()
    interval = serializers.ListField(child=serializers.FloatField())


class Judgements(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """What can become data, for the editors of its project; newest first."""

    queryset = Judgement.objects.all()
    serializer_class = JudgementSerializer
    filterset_fields = ["project", "state", "kind", "deployment"]
    lookup_value_regex = r"\d{1,17}"

    def get_queryset(self) -> QuerySet[Judgement]:
        if getattr(self, "swagger_fake_view", False):
            return Judgement.objects.none()
        return selectors.judgement_list(user=_user(self.request))

    @extend_schema(request=ReviewSerializer, responses={200: {"type": "object", "properties": {"moved": {"type": "integer"}}}})
    @action(detail=False, methods=["post"])
    def review(self, request: Request) -> Response:
        """Accepts judgements, leaves them out, or opens them again."""
        values = self._values(ReviewSerializer, request)
        project = wanted_project(request)
        moved = services.judgement_review(
            project=project, user=_user(request), ids=values["judgements"], to=values["state"], reason=values["reason"]
        )
        return Response({"moved": moved})

    @extend_schema(request=NewJudgedVersionSerializer, responses={201: MadeVersionSerializer})
    @action(detail=False, methods=["post"])
    def dataset(self, request: Request) -> Response:
        """A dataset version of all accepted judgements."""
        values = self._values(NewJudgedVersionSerializer, request)
        values.pop("project", None)
        made = services.judged_version_create(project=wanted_project(request), user=_user(request), **values)
        return Response(MadeVersionSerializer(made).data, status=status.HTTP_201_CREATED)

    @extend_schema(parameters=[_PROJECT], responses=WinRateSerializer(many=True))
    @action(detail=False, url_path="win-rates", pagination_class=None, filterset_fields=None)
    def win_rates(self, request: Request) -> Response:
        """How often each model was preferred to each other, side by side."""
        project = wanted_project(request, role=Role.VIEWER)
        return Response(WinRateSerializer(selectors.win_rates(user=_user(request), project=project), many=True).data)

    def _values(self, kind: Any, request: Request) -> dict[str, Any]:
        serializer = kind(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)


def _user(request: Any) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
