"""What a list of runs can be narrowed by."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet

from r1platform.filters import RowFilters
from training_app.models import PhaseRun
from training_app.states import RunState


class RunFilter(RowFilters):
    """By what a run is and stands in; `state` may be named more than once."""

    state = django_filters.MultipleChoiceFilter(choices=RunState.choices)
    tag = django_filters.CharFilter(method="with_tag", max_length=40)

    class Meta:
        model = PhaseRun
        fields = ["project", "state", "phase", "launch", "dataset_version", "name", "tag"]

    def with_tag(self, queryset: QuerySet[PhaseRun], _name: str, value: str) -> QuerySet[PhaseRun]:
        """Runs that bear the tag, whatever others they bear."""
        wanted: Any = [value]
        return queryset.filter(tags__contains=wanted)
