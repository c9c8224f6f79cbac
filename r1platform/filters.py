"""Filters that every list of the REST API has as far as its rows have the columns: by name, by time, in which order.

A resource adds its own with `filterset_fields`.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import django_filters.rest_framework as django_filters
from django import forms
from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignKey, Model, QuerySet
from django.utils.dateparse import parse_date, parse_datetime
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend, OrderingFilter
from rest_framework.request import Request

MAX_TEXT = 200
MAX_ID = (1 << 63) - 1
ORDERED = ("id", "name", "created_at")
"""Columns that are never null, which a cursor can stand on."""
TIMES = {"created_after": "created_at__gte", "created_before": "created_at__lt"}


class IdFilter(django_filters.NumberFilter):  # type: ignore[misc]
    """By the id of another row. One that is nobody's and one that is not the caller's to see both find nothing."""

    field_class = forms.IntegerField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"min_value": 0, "max_value": MAX_ID, **kwargs})


class RowFilters(django_filters.FilterSet):  # type: ignore[misc]
    """The base of every resource's filters: django-filter's own choice of a row tells apart which ids there are."""

    FILTER_DEFAULTS = {**django_filters.FilterSet.FILTER_DEFAULTS, ForeignKey: {"filter_class": IdFilter}}


class RowFilterBackend(django_filters.DjangoFilterBackend):  # type: ignore[misc]
    """Reads `filterset_fields` and `filterset_class`."""

    filterset_base = RowFilters


class CommonFilters(BaseFilterBackend):
    """`q` in the name, `created_after` and `created_before`. One thing is found by its id alone: there `q` is its own."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        if getattr(view, "detail", False):
            return queryset
        model = queryset.model
        if _has(model, "created_at"):
            for name, lookup in TIMES.items():
                if given := request.query_params.get(name, ""):
                    queryset = queryset.filter(**{lookup: moment(name, given)})
        if _has(model, "name"):
            for word in request.query_params.get("q", "")[:MAX_TEXT].split():
                queryset = queryset.filter(name__icontains=word)
        return queryset

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        model = _model(view)
        told = []
        if _has(model, "created_at"):
            told += [_told("created_after", "A date or a time; rows of that moment are told."),
                     _told("created_before", "A date or a time; rows of that moment are not told.")]  # fmt: skip
        return [*told, *([_told("q", "Words that the name holds, in any order.")] if _has(model, "name") else [])]


class CommonOrdering(OrderingFilter):
    """`ordering` by ORDERED, a minus before it for the other way; what cannot be ordered by is refused."""

    ordering_param = "ordering"

    def get_valid_fields(self, queryset: QuerySet[Any], view: Any, context: Any = None) -> list[tuple[str, str]]:
        return [(name, name) for name in ORDERED if _has(queryset.model, name)]

    def remove_invalid_fields(self, queryset: QuerySet[Any], fields: Any, view: Any, request: Request) -> list[str]:
        names = [str(name) for name in fields]
        valid = [name for name, _ in self.get_valid_fields(queryset, view)]
        for name in names:
            if name.removeprefix("-") not in valid:
                raise ValidationError({"ordering": f"Rows cannot be ordered by “{name[:40]}”; choose of {', '.join(valid)}."})
        return names

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        valid = [name for name in ORDERED if _has(_model(view), name)]
        return [_told("ordering", f"{', '.join(valid)}; with a minus before it the other way round.")] if valid else []


def moment(name: str, given: str) -> datetime:
    """A date or a time of a query, in UTC where it names no zone. Raises ValidationError at its name."""
    try:
        found = parse_datetime(given)
        day = parse_date(given) if found is None else None
    except ValueError:
        found = day = None
    if day is not None:
        return datetime.combine(day, time(), UTC)
    if found is None:
        raise ValidationError({name: f"“{given[:40]}” is neither a date such as 2026-01-31 nor a time."})
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _model(view: Any) -> type[Model] | None:
    """What the view lists; None of an action on one thing, whose answer is no list of these rows."""
    queryset = getattr(view, "queryset", None)
    return None if queryset is None or getattr(view, "detail", False) else queryset.model


def _has(model: type[Model] | None, name: str) -> bool:
    if model is None:
        return False
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def _told(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": {"type": "string"}}
