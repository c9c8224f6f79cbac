"""Usage and cost: tokens by model, key and day, and the device time of training by run."""

from __future__ import annotations

import datetime
from typing import Any

from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from r1platform.access import current_project, for_user
from serving_app import selectors
from training_app.models import PhaseRun

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days"}
MAX_RUNS = 50


@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """The page; `days` is the period."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    days = request.GET.get("days", "30")
    days = days if days in PERIODS else "30"
    since = timezone.now() - datetime.timedelta(days=int(days))
    runs = for_user(PhaseRun.objects.filter(project=project, created_at__gte=since), request.user)
    context = {
        "project": project,
        "days": days,
        "periods": PERIODS,
        **selectors.usage_summary(project=project, user=request.user, since=since),
        "runs": _runs(runs),
        "device_seconds": runs.aggregate(total=Sum("device_seconds"))["total"] or 0,
    }
    return render(request, "serving_app/usage.html", context)


def _runs(runs: QuerySet[PhaseRun]) -> list[dict[str, Any]]:
    costly = runs.filter(device_seconds__gt=0).select_related("launch__pipeline").order_by("-device_seconds")[:MAX_RUNS]
    return [
        {"run": run, "fraction": run.device_seconds / run.budget_device_seconds if run.budget_device_seconds else None}
        for run in costly
    ]
