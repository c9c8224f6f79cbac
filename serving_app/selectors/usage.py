"""What was used and what it cost: by model, key, user and day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Avg, Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDay
from django.utils import timezone

from r1platform.access import for_user
from r1platform.models import ApiKey, Project
from serving_app.models import UsageRecord

MAX_ROWS = 1000
_SUMS: dict[str, Any] = {
    "num_requests": Count("id"),
    "num_failed": Count("id", filter=Q(status__gte=400)),
    "prompt_tokens": Sum("prompt_tokens", default=0),
    "cached_tokens": Sum("cached_tokens", default=0),
    "completion_tokens": Sum("completion_tokens", default=0),
    "reasoning_tokens": Sum("reasoning_tokens", default=0),
    "device_seconds": Sum("device_seconds", default=0.0),
    "cost_dollars": Sum("cost_dollars", default=Decimal(0)),
    "ttft_seconds": Avg("ttft_seconds"),
    "seconds": Sum("seconds", default=0.0),
}


def usage_summary(*, project: Project, user: User | AnonymousUser, since: datetime) -> dict[str, Any]:
    """Sums since a time: in total, by model, by key (None is the playground), by user and by day and model."""
    rows = _rows(project, user, since)
    by_day = _by(rows.annotate(day=TruncDay("created_at")), "day", "model_name")
    return {
        "total": rows.aggregate(**_SUMS),
        "by_model": _by(rows, "model_name"),
        "by_key": _by(rows, "api_key__name", "api_key__prefix"),
        "by_user": _by(rows, "user__username"),
        "by_day": [{**row, "day": row["day"].date().isoformat()} for row in by_day],
    }


def usage_rows(*, project: Project, user: User | AnonymousUser, since: datetime) -> Iterator[dict[str, Any]]:
    """Sums by day, model, key and user, oldest first; as many as there are."""
    rows = _rows(project, user, since).annotate(day=TruncDay("created_at"))
    names = ("day", "model_name", "api_key__name", "api_key__prefix", "user__username")
    for row in rows.values(*names).annotate(**_SUMS).order_by(*names).iterator(chunk_size=2000):
        prefix = row.pop("api_key__prefix")
        yield {
            "day": row.pop("day").date().isoformat(), "model": row.pop("model_name"), "user": row.pop("user__username") or "",
            "key": row.pop("api_key__name") or "", "key_prefix": f"r1_{prefix}" if prefix else "", **row,
        }  # fmt: skip


def keys_with_budget(*, project: Project, user: User | AnonymousUser) -> list[dict[str, Any]]:
    """Keys of this project and one's own that may spend so much a month, with what they have spent this month."""
    now = timezone.now()
    month = Q(usage__created_at__gte=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    keys = for_user(ApiKey.objects.filter(project=project), user) | ApiKey.objects.filter(user=user.pk)
    keys = keys.filter(revoked_at=None).exclude(dollars_per_month=None)
    spent = keys.annotate(spent=Sum("usage__cost_dollars", filter=month, default=Decimal(0))).order_by("name", "pk")
    return [
        {"name": key.name, "prefix": key.prefix, "limit": key.dollars_per_month, "spent": key.spent,
         "fraction": float(key.spent / key.dollars_per_month)}
        for key in spent[:MAX_ROWS] if key.dollars_per_month
    ]  # fmt: skip


def _rows(project: Project, user: User | AnonymousUser, since: datetime) -> QuerySet[UsageRecord]:
    return for_user(UsageRecord.objects.filter(project=project, created_at__gte=since), user).order_by()


def _by(rows: QuerySet[UsageRecord], *names: str) -> list[dict[str, Any]]:
    return list(rows.values(*names).annotate(**_SUMS).order_by(*names)[:MAX_ROWS])
