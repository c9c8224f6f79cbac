"""Several runs side by side: overlaid charts, a table of what they measured, the settings in which they differ."""

from __future__ import annotations

import json
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from r1platform.access import for_user
from training_app import selectors
from training_app.models import MetricSeries, PhaseRun
from training_app.views import run_words

PARTS = {"charts": "Charts", "table": "Table", "parallel": "Parallel coordinates", "settings": "Settings"}


@require_safe
def run_compare(request: HttpRequest) -> HttpResponse:
    """`?runs=3,5`, or a parameter `runs` for each; runs that the user may not see are not found."""
    part = request.GET.get("part", "charts")
    if part not in PARTS:
        raise Http404(f"A comparison has no part “{part}”.")
    try:
        ids = selectors.run_ids_of(",".join(request.GET.getlist("runs")))
    except ValueError as error:
        return render(request, "training_app/compare/none.html", {"why": str(error) if request.GET.get("runs") else ""})
    context = {"part": part, "parts": PARTS, **_PART_CONTEXT[part](_runs(request, ids))}
    return render(request, f"training_app/compare/{part}.html", context)


def _runs(request: HttpRequest, ids: list[int]) -> list[PhaseRun]:
    """In the order asked. Raises Http404."""
    runs = for_user(PhaseRun.objects.filter(pk__in=ids), request.user)
    found = {run.pk: run for run in runs.defer("result", "progress", "notes")}
    if missing := [pk for pk in ids if pk not in found]:
        raise Http404(f"There is no run {missing[0]}.")
    return [found[pk] for pk in ids]


def _charts(runs: list[PhaseRun]) -> dict[str, Any]:
    names = sorted(set(MetricSeries.objects.filter(run__in=runs).values_list("name", flat=True)))
    shown = [{"id": run.pk, "name": run.name, "live": run.state in run_words.MOVING} for run in runs]
    return {
        "runs": runs, "series": names, "metric_words": run_words.metric_words(names),
        "page_context": {"runs": shown, "series": names, "urls": {"metrics": "/api/v1/runs/metrics/"}},
    }  # fmt: skip


def _table(runs: list[PhaseRun]) -> dict[str, Any]:
    found = selectors.runs_comparison(runs)
    return {"runs": runs, "measures": [_measure(one) for one in found["measures"]]}


def _measure(measure: dict[str, Any]) -> dict[str, Any]:
    """A row: title, unit, and each run's value, the best of them marked."""
    bests = [value["best"] for value in measure["values"] if value and value["best"] is not None]
    top = {"higher": max, "lower": min}.get(measure["better"], max)(bests, default=None)
    values = [
        value and {**value, "is_top": top is not None and len(bests) > 1 and value["best"] == top} for value in measure["values"]
    ]
    return {**measure, "title": run_words.title_of(measure["name"]), "values": values}


def _parallel(runs: list[PhaseRun]) -> dict[str, Any]:
    found = selectors.runs_comparison(runs)
    titles = {one["name"]: run_words.title_of(one["name"]) for one in found["measures"]}
    return {"runs": runs, "comparison": {**found, "titles": titles}}


def _settings(runs: list[PhaseRun]) -> dict[str, Any]:
    found = selectors.runs_comparison(runs)["settings"]
    rows = [{"path": one["path"], "values": [_shown(value) for value in one["values"]]} for one in found]
    return {"runs": runs, "settings": rows}


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


_PART_CONTEXT = {"charts": _charts, "table": _table, "parallel": _parallel, "settings": _settings}
