"""Usage and cost: tokens by model, key and day, and the device time of training by run."""

from __future__ import annotations

import datetime
from typing import Any

from django.db.models import Avg, Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDay
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from r1platform.access import current_project, for_user
from serving_app.models import UsageRecord
from training_app.models import PhaseRun

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days"}
MAX_RUNS = 50


@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """The page; `days`, `model` and `key` narrow it."""
    project = current_project(request)
    days = request.GET.get("days", "30")
    days = days if days in PERIODS else "30"
    since = timezone.now() - datetime.timedelta(days=int(days))
    records = for_user(UsageRecord.objects.filter(project=project, created_at__gte=since), request.user)
    models = list(records.order_by("model_name").values_list("model_name", flat=True).distinct())
    if model := request.GET.get("model"):
        records = records.filter(model_name=model)
    runs = for_user(PhaseRun.objects.filter(project=project, created_at__gte=since), request.user)
    context = {
        "project": project,
        "days": days,
        "periods": PERIODS,
        "models": models,
        "model": model or "",
        "total": _sums(records),
        "by_model": _grouped(records, "model_name"),
        "by_key": _grouped(records, "api_key__name", "api_key__prefix"),
        "plot": _by_day(records),
        "runs": _runs(runs),
        "device_seconds": runs.aggregate(total=Sum("device_seconds"))["total"] or 0,
    }
    return render(request, "serving_app/usage.html", context)


_TOTALS: dict[str, Any] = {
    "requests": Count("id"),
    "prompt": Sum("prompt_tokens"),
    "completion": Sum("completion_tokens"),
    "reasoning": Sum("reasoning_tokens"),
    "failed": Count("id", filter=Q(status__gte=400)),
    "ttft": Avg("ttft_seconds"),
    "seconds": Sum("seconds"),
}


def _sums(records: QuerySet[UsageRecord]) -> dict[str, Any]:
    return records.aggregate(**_TOTALS)


def _grouped(records: QuerySet[UsageRecord], *keys: str) -> list[dict[str, Any]]:
    return list(records.order_by().values(*keys).annotate(**_TOTALS).order_by("-completion")[:100])


def _by_day(records: QuerySet[UsageRecord]) -> list[dict[str, Any]]:
    """One bar a day and model: answer tokens without thinking, thinking, input."""
    rows = (
        records.order_by()
        .annotate(day=TruncDay("created_at"))
        .values("day", "model_name")
        .annotate(prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"), reasoning=Sum("reasoning_tokens"))
        .order_by("day", "model_name")
    )
    return [{**row, "day": row["day"].date().isoformat()} for row in rows]


def _runs(runs: QuerySet[PhaseRun]) -> list[dict[str, Any]]:
    newest = runs.filter(device_seconds__gt=0).select_related("launch__pipeline").order_by("-device_seconds")[:MAX_RUNS]
    return [
        {"run": run, "fraction": run.device_seconds / run.budget_device_seconds if run.budget_device_seconds else None}
        for run in newest
    ]
