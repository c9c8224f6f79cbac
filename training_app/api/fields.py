"""Parts that the resources of training share: choosing rows of one's own projects, reading numbers of a query."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from r1platform.access import for_user
from training_app.models import Checkpoint, DatasetVersion

MAX_NUMBER = 1 << 53


class CheckpointField(serializers.PrimaryKeyRelatedField[Checkpoint]):
    """A checkpoint of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        if request is None:
            return Checkpoint.objects.none()
        return for_user(Checkpoint.objects.select_related("run", "attempt"), request.user, path="run__project")


class VersionField(serializers.PrimaryKeyRelatedField[DatasetVersion]):
    """A dataset version of a project that the caller is a member of."""

    def get_queryset(self) -> Any:
        request = self.context.get("request")
        if request is None:
            return DatasetVersion.objects.none()
        return for_user(DatasetVersion.objects.select_related("dataset"), request.user, path="dataset__project")


def query_number(request: Request, name: str) -> int | None:
    """A whole number of the query, None when it is not given. Raises ValidationError at its name."""
    given = request.query_params.get(name, "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 17 and int(given) < MAX_NUMBER):
        raise ValidationError({name: f"“{given[:40]}” is not a whole number."})
    return int(given)


def values_of(kind: Any, request: Request, context: dict[str, Any]) -> dict[str, Any]:
    """The validated body. Raises ValidationError."""
    serializer = kind(data=request.data, context=context)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def user_of(request: Request) -> User:
    """The caller; the permission class lets nobody else through."""
    assert isinstance(request.user, User)
    return request.user
