"""Usage and cost: tokens and dollars by model, key, user and day, prices, and the device time of training by run."""

from __future__ import annotations

import csv
import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from model_core.errors import ConfigError
from r1platform.access import current_project, for_user, require_role, role_in, signed_in
from r1platform.models import Project, Role
from serving_app import selectors, services
from serving_app.models import Price
from serving_app.services.prices import PER_TIME, PER_TOKEN
from serving_app.views.deployments import deployment_of
from training_app.models import PhaseRun

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days"}
MAX_RUNS = 50
COLUMNS = [
    "day", "model", "user", "key", "key_prefix", "num_requests", "num_failed", "prompt_tokens", "cached_tokens",
    "completion_tokens", "reasoning_tokens", "device_seconds", "cost_dollars", "ttft_seconds", "seconds",
]  # fmt: skip
"""Of the export."""


class PriceForm(forms.ModelForm):  # type: ignore[type-arg]
    """The price of one deployment."""

    class Meta:
        model = Price
        fields = [*PER_TOKEN, PER_TIME]
        labels = {
            "input_dollars": "$ per million input tokens", "cached_dollars": "$ per million cached input tokens",
            "output_dollars": "$ per million output tokens", "device_hour_dollars": "$ a device-hour, instead of tokens",
        }  # fmt: skip


@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """The page; `days` is the period."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    days, since = _period(request)
    runs = for_user(PhaseRun.objects.filter(project=project, created_at__gte=since), request.user)
    context = {
        "project": project,
        "days": days,
        "periods": PERIODS,
        **selectors.usage_summary(project=project, user=request.user, since=since),
        "budgets": selectors.keys_with_budget(project=project, user=request.user),
        "prices": _prices(project, request.user),
        "may_price": role_in(request.user, project) in {Role.EDITOR, Role.OWNER},
        "runs": _runs(runs),
        "device_seconds": runs.aggregate(total=Sum("device_seconds"))["total"] or 0,
    }
    return render(request, "serving_app/usage.html", context)


@require_safe
def usage_export(request: HttpRequest) -> HttpResponseBase:
    """The sums by day, model, key and user as CSV."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    _days, since = _period(request)
    rows = selectors.usage_rows(project=project, user=request.user, since=since)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-{project.slug}.csv"'
    writer = csv.DictWriter(response, fieldnames=COLUMNS)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return response


@require_POST
def price(request: HttpRequest, deployment_id: int) -> HttpResponse:
    """Sets the price of a deployment."""
    deployment = deployment_of(request, deployment_id)
    require_role(request.user, deployment.project, Role.EDITOR)
    form = PriceForm(request.POST)
    try:
        if form.is_valid():
            services.price_set(deployment=deployment, user=signed_in(request), **form.cleaned_data)
            messages.success(request, f"“{deployment.name}” has a new price. It holds for requests from now on.")
        for name, errors in form.errors.items():
            messages.error(request, f"{form.fields[name].label if name in form.fields else 'Price'}: {' '.join(map(str, errors))}")
    except ConfigError as error:
        messages.error(request, error.message)
    return redirect("usage")


def _period(request: HttpRequest) -> tuple[str, datetime.datetime]:
    days = request.GET.get("days", "30")
    days = days if days in PERIODS else "30"
    return days, timezone.now() - datetime.timedelta(days=int(days))


def _prices(project: Project, user: User | AnonymousUser) -> list[dict[str, Any]]:
    """Each deployment with its price and the form of it."""
    rows = []
    for deployment in selectors.deployment_list(user=user, project=project).select_related("price"):
        found = getattr(deployment, "price", None)
        form = PriceForm(instance=found or Price(), auto_id=f"price-{deployment.pk}-%s")
        rows.append({"deployment": deployment, "price": found, "form": form})
    return rows


def _cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return f"{value:f}" if isinstance(value, Decimal) else value


def _runs(runs: QuerySet[PhaseRun]) -> list[dict[str, Any]]:
    costly = runs.filter(device_seconds__gt=0).select_related("launch__pipeline").order_by("-device_seconds")[:MAX_RUNS]
    return [
        {"run": run, "fraction": run.device_seconds / run.budget_device_seconds if run.budget_device_seconds else None}
        for run in costly
    ]
