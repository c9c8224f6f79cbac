"""Addresses of the run pages, and the list. One run's page is in `runs_page`, what its buttons do in `runs_actions`."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_safe

from model_core.phases import PHASES
from r1platform.access import current_project, role_in, signed_in
from r1platform.lib.ids import id_of
from r1platform.models import Role
from r1platform.templatetags.r1 import duration, percent
from training_app import selectors
from training_app.models import PhaseRun
from training_app.states import RunState
from training_app.views import run_words, runs_actions, runs_compare, runs_new, runs_page, runs_retry

PER_PAGE = 50
ROWS = {"launch": "launch", "version": "dataset_version", "from": "starts_from__run"}
"""Parts of the address that name a row: a launch, a dataset version, the run that others start from."""
FILTERS = ("q", "state", "phase", "tag", "who", *ROWS)
SORTS: dict[str, tuple[str, Any]] = {
    "newest": ("Newest first", F("id").desc()),
    "oldest": ("Oldest first", F("id").asc()),
    "name": ("Name", F("name").asc()),
    "accuracy": ("Best accuracy", F("result__accuracy").desc(nulls_last=True)),
    "quality": ("Best quality", F("result__quality_low").desc(nulls_last=True)),
    "device_seconds": ("Most device time", F("device_seconds").desc()),
}


@require_safe
def run_list(request: HttpRequest) -> HttpResponse:
    """The table of runs; asked for its live part it answers with the table alone."""
    project = current_project(request)
    if project is None:
        return redirect("overview")
    runs = selectors.run_list(user=request.user, project=project, filters={})
    found = _sorted(_filtered(runs, request), request.GET.get("sort", ""))
    page = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "rows": [_row(run) for run in page],
        "filtered": any(request.GET.get(name) for name in FILTERS),
        "values": request.GET,
        "chips": _chips(request.GET),
        "states": RunState.choices,
        "phases": PHASES.names(),
        "sorts": [(key, label) for key, (label, _order) in SORTS.items()],
        "project": project,
        "num_alerts": selectors.alert_list(user=request.user, project=project, is_open=True).count(),
        "may_edit": role_in(request.user, project) in {Role.EDITOR, Role.OWNER},
    }
    if "X-Part" in request.headers:
        return render(request, "training_app/run/_part.html", {**context, "part": "training_app/run/_table.html"})
    return render(request, "training_app/run/list.html", context)


def _filtered(runs: QuerySet[PhaseRun], request: HttpRequest) -> QuerySet[PhaseRun]:
    given: QueryDict = request.GET
    if text := given.get("q", "").strip():
        number = Q() if id_of(text) is None else Q(pk=id_of(text))
        runs = runs.filter(Q(name__icontains=text) | Q(notes__icontains=text) | Q(tags__contains=[text]) | number)
    if state := given.get("state"):
        runs = runs.filter(state__in=run_words.MOVING if state == "live" else [state])
    if phase := given.get("phase"):
        runs = runs.filter(phase=phase)
    for tag in filter(None, given.getlist("tag")):
        runs = runs.filter(tags__contains=[tag])
    if given.get("who") == "me":
        runs = runs.filter(created_by=signed_in(request))
    for name, column in ROWS.items():
        if row := given.get(name):
            runs = runs.none() if id_of(row) is None else runs.filter(**{column: id_of(row)})
    return runs


def _chips(given: QueryDict) -> list[dict[str, str]]:
    """What narrows the table besides the fields above it: words, and the address without it."""
    chips = [("tag", tag, f"tag {tag}") for tag in given.getlist("tag") if tag]
    chips += [(name, row, f"{name} {row}") for name in ROWS if (row := given.get(name))]
    found = []
    for name, value, words in chips:
        rest = given.copy()
        rest.setlist(name, [other for other in given.getlist(name) if other != value])
        rest.pop("page", None)
        found.append({"name": name, "value": value, "words": words, "without": f"?{rest.urlencode()}"})
    return found


def _sorted(runs: QuerySet[PhaseRun], key: str) -> QuerySet[PhaseRun]:
    _label, order = SORTS.get(key, SORTS["newest"])
    return runs.order_by(order, "-id")


def _row(run: PhaseRun) -> dict[str, Any]:
    found = run_words.measured(run)
    low = found.get("quality_low", found.get("quality"))
    return {
        "run": run,
        "is_moving": run.state in run_words.MOVING or run.state == RunState.PAUSED,
        "words": run_words.progress_words(run),
        "fraction": run_words.progress_fraction(run) if run.state in run_words.LIVE else None,
        "accuracy": percent(found["accuracy"]) if found.get("accuracy") is not None else "",
        "quality": f"{low:.3f}" if low is not None else "",
        "gate": run_words.gate_words(run),
        "device_time": duration(run.device_seconds) if run.device_seconds else "",
    }


urlpatterns = [
    path("runs/", run_list, name="run-list"),
    path("runs/compare/", runs_compare.run_compare, name="runs-compare"),
    path("runs/new/", runs_new.run_new, name="run-new"),
    path("runs/new/rates/", runs_new.run_rates, name="run-rates"),
    path("runs/<int:run_id>/", runs_page.run_detail, name="run-detail"),
    path("runs/<int:run_id>/header/", runs_page.run_header, name="run-header"),
    path("runs/<int:run_id>/retry/", runs_retry.run_retry, name="run-retry-changed"),
    path("runs/<int:run_id>/act/<str:verb>/", runs_actions.run_act, name="run-act"),
    path("runs/<int:run_id>/<str:tab>/", runs_page.run_detail, name="run-detail"),
]
