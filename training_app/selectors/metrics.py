"""Any range of any series as at most about `max_buckets` buckets, at a cost that does not grow with the series."""

from __future__ import annotations

from typing import Any

from django.db.models import Max, Min

from model_core.events import METRICS
from training_app import pyramid
from training_app.models import MetricSeries, PhaseRun, RunEvent

MAX_BUCKETS = 1000
_TRIES = 4
_COLUMNS = ("x", "last", "min", "max", "n", "nonfinite", "time", "tokens", "process_seconds")


def run_metrics(
    run: PhaseRun,
    *,
    names: list[str] | None = None,
    x_from: int | None = None,
    x_to: int | None = None,
    max_buckets: int = MAX_BUCKETS,
) -> dict[str, Any]:
    """Columns of each series between two steps, the newest event they hold, and the level they are of.

    Read again when events came in between, so that `last_event_id` and the columns are of one moment.
    """
    for _attempt in range(_TRIES):
        newest = _newest(run)
        answer = _read(run, names, x_from, x_to, max_buckets)
        if _newest(run) == newest:
            break
    return {**answer, "last_event_id": newest}


def _newest(run: PhaseRun) -> int:
    return RunEvent.objects.filter(run=run).order_by("-pk").values_list("pk", flat=True).first() or 0


def _read(
    run: PhaseRun, names: list[str] | None, x_from: int | None, x_to: int | None, max_buckets: int
) -> dict[str, Any]:
    rows = MetricSeries.objects.filter(run=run)
    if names is not None:
        rows = rows.filter(name__in=names)
    ends = rows.aggregate(first=Min("first_step"), last=Max("last_step"))
    if ends["last"] is None:
        return {"series": [], "level": 0}
    first = ends["first"] if x_from is None else max(x_from, 0)
    last = ends["last"] if x_to is None else max(min(x_to, ends["last"]), first)
    level = pyramid.level_for(last - first + 1, max(max_buckets, 2))
    series = list(rows)
    found = pyramid.read([one.pk for one in series], level=level, first=first, last=last)
    return {
        "series": [
            {"name": one.name, "unit": METRICS.get(one.name, ("", ""))[0], **_columns(found[one.pk])} for one in series
        ],
        "level": level,
    }


def _columns(rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    if not rows:
        return {name: [] for name in _COLUMNS}
    return {name: list(values) for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True)}
