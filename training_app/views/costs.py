"""What training costs: by run, phase, pipeline and day, beside what others have paid."""

from __future__ import annotations

import datetime as dt

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from r1platform.models import Project
from r1platform.project_pages import project_page
from training_app import selectors
from training_app.published_costs import ARTICLE
from training_app.views.run_words import forecast_words, used_words

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days", "3650": "all time"}


@require_safe
@project_page
def cost_page(request: HttpRequest, project: Project) -> HttpResponse:
    """The page; `days` is the period, `price` that of a device-hour of runs that were launched without one."""
    days = request.GET.get("days", "30")
    days = days if days in PERIODS else "30"
    price = selectors.price_given(request.GET.get("price", ""))
    since = timezone.now() - dt.timedelta(days=int(days))
    report = selectors.cost_report(user=request.user, project=project, since=since, price=price)
    live = [
        {"run": one["run"], "uses": [{"fraction": use.fraction, "words": used_words(use), "forecast": forecast_words(use)}
                                     for use in one["uses"]]}
        for one in report["live"]
    ]  # fmt: skip
    context = {
        **report, "live": live, "project": project, "days_shown": days, "periods": PERIODS, "price": price,
        "article_source": ARTICLE,
    }  # fmt: skip
    return render(request, "training_app/costs.html", context)
