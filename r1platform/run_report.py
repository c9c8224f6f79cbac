"""A run on paper: one page without scripts or further files, to print, to save as PDF, or to send as it is.

Plots are drawn here as SVG from the same buckets as the charts: the line is the last value of a bucket, the band behind it
its extremes, a mark at the foot a value that was not finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from r1platform.access import for_user
from training_app import selectors
from training_app.budgets import uses_of
from training_app.models import PhaseRun, RunEvent

BUCKETS = 300
MAX_PLOTS = 40
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 170, 52, 8, 8, 20
"""Of a plot and its margins, in SVG units."""


@dataclass(frozen=True)
class Plot:
    """One series, ready to be drawn."""

    name: str
    unit: str
    lines: list[str]
    """Points of each unbroken part of the line; a gap is a gap."""
    bands: list[str]
    marks: list[float]
    ticks_x: list[tuple[float, str]]
    ticks_y: list[tuple[float, str]]
    last: float | None


@login_required
@require_safe
def run_report(request: HttpRequest, run_id: int) -> HttpResponse:
    """The report; with `?download` as a file."""
    runs = for_user(PhaseRun.objects.select_related("project", "launch__pipeline", "dataset_version__dataset"), request.user)
    run = get_object_or_404(runs, pk=run_id)
    evaluations = RunEvent.objects.filter(run=run, kind="evaluation").order_by("-pk")[:20]
    context = {
        "run": run,
        "now": timezone.now(),
        "by": request.user,
        "url": request.build_absolute_uri(),
        "plots": plots_of(run),
        "box": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "foot": HEIGHT - BOTTOM},
        "evaluations": [event.payload for event in reversed(evaluations)],
        "uses": uses_of(run),
        "checkpoints": selectors.run_checkpoints(run)[:30],
        "moves": run.transitions.select_related("user"),
    }
    answer = render(request, "r1platform/run_report.html", context)
    if "download" in request.GET:
        answer["Content-Disposition"] = f'attachment; filename="run-{run.pk}.html"'
    return answer


def plots_of(run: PhaseRun) -> list[Plot]:
    """The run's series by name, those that have a value."""
    told = selectors.run_metrics(run, max_buckets=BUCKETS)["series"]
    found = (plot_of(series) for series in sorted(told, key=lambda one: str(one["name"])))
    return [plot for plot in found if plot is not None][:MAX_PLOTS]


def plot_of(series: dict[str, Any]) -> Plot | None:
    """None for a series without a finite value."""
    rows = list(zip(series["x"], series["last"], series["min"], series["max"], series["nonfinite"], strict=True))
    finite = [value for _, *values, _ in rows for value in values if _is_finite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    first, end = rows[0][0], rows[-1][0]
    spread = (high - low) or abs(high) or 1.0
    low, high = (low - spread / 2, high + spread / 2) if low == high else (low, high)

    def x(step: float) -> float:
        return float(round(LEFT + (step - first) / ((end - first) or 1) * (WIDTH - LEFT - RIGHT), 1))

    def y(value: float) -> float:
        return float(round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1))

    parts = _unbroken([row for row in rows if row[0] is not None])
    return Plot(
        name=series["name"],
        unit=series["unit"],
        lines=[" ".join(f"{x(step)},{y(last)}" for step, last, *_ in part) for part in parts],
        bands=[_band(part, x, y) for part in parts if len(part) > 1],
        marks=[x(row[0]) for row in rows if row[4]],
        ticks_x=[(x(first), f"{first:,}"), (x(end), f"{end:,}")] if end != first else [(x(first), f"{first:,}")],
        ticks_y=[(y(value), f"{value:.4g}") for value in (low, (low + high) / 2, high)],
        last=next((row[1] for row in reversed(rows) if _is_finite(row[1])), None),
    )


def _unbroken(rows: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """The rows with a finite last value, parted where one has none."""
    parts: list[list[tuple[Any, ...]]] = [[]]
    for row in rows:
        if _is_finite(row[1]):
            parts[-1].append(row)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _band(part: list[tuple[Any, ...]], x: Any, y: Any) -> str:
    above = [(row[0], row[3] if _is_finite(row[3]) else row[1]) for row in part]
    below = [(row[0], row[2] if _is_finite(row[2]) else row[1]) for row in reversed(part)]
    return " ".join(f"{x(step)},{y(value)}" for step, value in above + below)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
