"""What was used: by model, by key and by day."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Avg, Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDay

from r1platform.access import for_user
from r1platform.models import Project
from serving_app.models import UsageRecord

MAX_ROWS = 1000
_SUMS: dict[str, Any] = {
    "num_requests": Count("id"),
    "num_failed": Count("id", filter=Q(status__gte=400)),
    "prompt_tokens": Sum("prompt_tokens", default=0),
    "completion_tokens": Sum("completion_tokens", default=0),
    "reasoning_tokens": Sum("reasoning_tokens", default=0),
    "ttft_seconds": Avg("ttft_seconds"),
    "seconds": Sum("seconds", default=0.0),
}


def usage_summary(*, project: Project, user: User | AnonymousUser, since: datetime) -> dict[str, Any]:
    """Sums since a time: in total, by model, by key (None is the playground) and by day and model."""
    rows = for_user(UsageRecord.objects.filter(project=project, created_at__gte=since), user).order_by()
    by_day = _by(rows.annotate(day=TruncDay("created_at")), "day", "model_name")
    return {
        "total": rows.aggregate(**_SUMS),
        "by_model": _by(rows, "model_name"),
        "by_key": _by(rows, "api_key__name", "api_key__prefix"),
        "by_day": [{**row, "day": row["day"].date().isoformat()} for row in by_day],
    }


def _by(rows: QuerySet[UsageRecord], *names: str) -> list[dict[str, Any]]:
    return list(rows.values(*names).annotate(**_SUMS).order_by(*names)[:MAX_ROWS])
