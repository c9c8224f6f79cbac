"""`/api/v1/measurements/`: what each run measured on held-out problems, before, while and after it trained."""

from __future__ import annotations

from typing import Any

import django_filters
from rest_framework import mixins, serializers

from r1platform.api import ProjectViewSet
from r1platform.filters import IdFilter, RowFilters
from training_app.models import RunEvent

SIZES = ("accuracy", "accuracy_low", "accuracy_high", "quality", "quality_low", "quality_high")


class MeasurementSerializer(serializers.Serializer[RunEvent]):
    """One measurement: shares are between 0 and 1, intervals 95 % (accuracy: Wilson, quality: bootstrap)."""

    id = serializers.IntegerField()
    run = serializers.IntegerField(source="run_id")
    run_name = serializers.CharField(source="run.name")
    phase = serializers.CharField(source="run.phase")
    project = serializers.IntegerField(source="run.project_id")
    dataset_version = serializers.IntegerField(source="run.dataset_version_id", allow_null=True)
    attempt = serializers.IntegerField(source="attempt.number")
    step = serializers.IntegerField(source="payload.step")
    when = serializers.CharField(source="payload.when", help_text="before, during or after the training of the run.")
    num_problems = serializers.IntegerField(source="payload.num_problems")
    unscored = serializers.IntegerField(source="payload.unscored", help_text="Answers that no reward could be given.")
    components = serializers.DictField(source="payload.components", help_text="Mean of each reward component.")
    time = serializers.DateTimeField()

    def get_fields(self) -> dict[str, Any]:
        sizes = {name: serializers.FloatField(source=f"payload.{name}", allow_null=True) for name in SIZES}
        return {**super().get_fields(), **sizes}


class OneMeasurementSerializer(MeasurementSerializer):
    """A measurement with its first answers."""

    examples = serializers.ListField(
        source="payload.examples", child=serializers.DictField(), help_text="Prompt, completion, expected, correct, reward."
    )


class MeasurementFilter(RowFilters):
    """By where it comes from and when it was made."""

    project = IdFilter("run__project")
    run = IdFilter("run")
    phase = django_filters.CharFilter("run__phase")
    launch = IdFilter("run__launch")
    when = django_filters.ChoiceFilter("payload__when", choices=[(name, name) for name in ("before", "during", "after")])


class Measurements(mixins.ListModelMixin, mixins.RetrieveModelMixin, ProjectViewSet):
    """Measurements on held-out problems, newest first."""

    queryset = RunEvent.objects.filter(kind="evaluation").select_related("run", "attempt")
    project_path = "run__project"
    filterset_class = MeasurementFilter

    def get_serializer_class(self) -> type[MeasurementSerializer]:
        return OneMeasurementSerializer if self.action == "retrieve" else MeasurementSerializer
