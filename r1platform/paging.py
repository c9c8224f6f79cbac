"""Pages of the REST API's lists: by cursor, so that `next` stays true while rows are added."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import DataError, models
from rest_framework import exceptions, pagination
from rest_framework.request import Request


class CursorPaging(pagination.CursorPagination):
    """Newest first. A cursor that somebody wrote by hand is told so, whatever its position holds."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
    ordering: Any = "-id"

    def paginate_queryset(self, queryset: models.QuerySet[Any], request: Request, view: Any = None) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, DataError, ValidationError):
            if self.cursor is None:
                raise
            raise exceptions.NotFound("This cursor is not one of ours; start without it and follow `next`.") from None
