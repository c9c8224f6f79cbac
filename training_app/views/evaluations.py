"""Evaluations: what every run measured on held-out problems, side by side. Public benchmarks are not run here yet."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from r1platform.access import for_user
from r1platform.models import Project
from r1platform.project_pages import project_page
from training_app.models import PhaseRun

PER_PAGE = 50
SORTS: dict[str, tuple[str, Any]] = {
    "newest": ("Newest first", F("id").desc()),
    "accuracy": ("Best accuracy", F("result__accuracy").desc(nulls_last=True)),
    "quality": ("Best quality, lower bound", F("result__quality_low").desc(nulls_last=True)),
}


@require_safe
@project_page
def evaluation_list(request: HttpRequest, project: Project) -> HttpResponse:
    """Runs that ended with a measurement on held-out problems."""
    runs = for_user(PhaseRun.objects.filter(project=project, result__num_problems__gt=0), request.user)
    runs = runs.select_related("launch__pipeline", "dataset_version__dataset").defer("config", "notes")
    sort = request.GET.get("sort", "")
    _label, order = SORTS.get(sort, SORTS["newest"])
    page = Paginator(runs.order_by(order, "-id"), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "sorts": [(key, label) for key, (label, _order) in SORTS.items()],
        "sort": sort,
        "components": sorted({name for run in page for name in ((run.result or {}).get("components") or {})}),
        "project": project,
    }
    return render(request, "training_app/evaluations/list.html", context)
