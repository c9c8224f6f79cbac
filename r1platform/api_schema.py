"""The OpenAPI schema of what every resource has: headers, `fields`, problem details, 304."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers, viewsets

from r1platform.problems import CONTENT_TYPE

_FIELDS = OpenApiParameter("fields", str, description="Names of what is told, with commas between; by default everything.")
_IF_NONE_MATCH = OpenApiParameter(
    "If-None-Match", str, OpenApiParameter.HEADER, description="ETag of the answer that you have: 304 while it is still true."
)
_IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="ETag of the thing as you saw it: 412 when it has changed since."
)
_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER,
    description="Visible ASCII, at most 200 characters, a new one for each thing: the same request is carried out once a day.",
)  # fmt: skip


class RefusalSerializer(serializers.Serializer[Any]):
    """RFC 9457, as `r1platform.problems.body` makes it."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What, why, and what to do.")

    def get_fields(self) -> dict[str, Any]:
        sentences = serializers.ListField(child=serializers.CharField())
        told = serializers.DictField(child=sentences, required=False, help_text="Sentences by dotted field.")
        return {**super().get_fields(), "errors": told}


def anything_may_be_null(result: Any, **_: Any) -> Any:
    """A field that may hold anything may hold null: “one of anything and null” would be refused, for null is both."""
    if isinstance(result, dict):
        if {} in (result.get("oneOf") or []):
            del result["oneOf"]
        for value in result.values():
            anything_may_be_null(value)
    elif isinstance(result, list):
        for value in result:
            anything_may_be_null(value)
    return result


class Schema(AutoSchema):
    """Adds what `r1platform.api_requests` and `r1platform.problems` do to every operation."""

    def get_override_parameters(self) -> list[Any]:
        return [*super().get_override_parameters(), *self._headers()]

    def _headers(self) -> list[Any]:
        if self.method == "GET":
            narrowed = isinstance(self.view, viewsets.GenericViewSet) and self.view.action in ("list", "retrieve")
            return [_IF_NONE_MATCH, *([_FIELDS] if narrowed else [])]
        named = "{id}" in self.path and hasattr(self.view, "retrieve")
        return [*([_IDEMPOTENCY_KEY] if self.method == "POST" else []), *([_IF_MATCH] if named else [])]

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        answers = super()._get_response_bodies(direction)
        if self.method == "GET":
            answers["304"] = {"description": "What you have is still true."}
        answers["4XX"] = self._get_response_for_code(  # type: ignore[no-untyped-call]
            RefusalSerializer, "4XX", media_types=[CONTENT_TYPE], direction=direction
        )
        return answers
