"""Any range of any series of any runs as few buckets, at a cost that does not grow with the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Max

from model_core.events import METRICS
from training_app import buckets, pyramid
from training_app.models import MetricSeries, PhaseRun, RunEvent

MAX_BUCKETS = 1000
MAX_BUCKETS_IN_ALL = 10_000
"""Of all series of an answer: what a page of charts can show, in 300 KB."""
FEWEST = 2
COLUMNS = {
    "x": "step", "last": "last", "min": "min", "max": "max", "n": "n", "nonfinite": "nonfinite", "time": "time",
    "tokens": "tokens", "process_seconds": "process",
}  # fmt: skip


def run_metrics(
    run: PhaseRun,
    *,
    names: list[str] | None = None,
    x_from: int | None = None,
    x_to: int | None = None,
    max_buckets: int = MAX_BUCKETS,
) -> dict[str, Any]:
    """Columns of each series between two steps, the steps a bucket holds, and the newest event they hold."""
    with pyramid.snapshot():
        newest = RunEvent.objects.filter(run=run).aggregate(newest=Max("pk"))["newest"] or 0
        width, series = _read([run.pk], names, (x_from, x_to), max_buckets, list(COLUMNS))
    return {"series": [found for _run, found in series], "width": width, "last_event_id": newest}


def runs_metrics(
    runs: Sequence[PhaseRun],
    *,
    names: list[str] | None = None,
    x_from: int | None = None,
    x_to: int | None = None,
    max_buckets: int = MAX_BUCKETS,
    columns: list[str] | None = None,
) -> dict[str, Any]:
    """The same of several runs at once, by run, all with buckets of the same steps."""
    with pyramid.snapshot():
        width, series = _read([run.pk for run in runs], names, (x_from, x_to), max_buckets, columns or list(COLUMNS))
    found: dict[int, list[dict[str, Any]]] = {run.pk: [] for run in runs}
    for run_id, one in series:
        found[run_id].append(one)
    return {"runs": [{"run": run_id, "series": of_run} for run_id, of_run in found.items()], "width": width}


def _read(
    run_ids: list[int], names: list[str] | None, ends: tuple[int | None, int | None], max_buckets: int, columns: list[str]
) -> tuple[int, list[tuple[int, dict[str, Any]]]]:
    """Steps of a bucket, and run and columns of each series."""
    rows = MetricSeries.objects.filter(run__in=run_ids)
    many = list(rows if names is None else rows.filter(name__in=names))
    if not many:
        return 1, []
    first = min(one.first_step for one in many) if ends[0] is None else ends[0]
    newest = max(one.last_step for one in many)
    last = newest if ends[1] is None else max(min(ends[1], newest), first)
    most = max(min(max_buckets, MAX_BUCKETS_IN_ALL // len(many)), FEWEST)
    width = buckets.width_for(last - first + 1, most)
    found = pyramid.read(many, first=first, last=last, width=width)
    return width, [(one.run_id, _columns(one.name, found[one.pk], columns)) for one in many]


def _columns(name: str, found: buckets.Buckets, columns: list[str]) -> dict[str, Any]:
    of_each = {column: buckets.numbers(found[COLUMNS[column]]) for column in columns}
    return {"name": name, "unit": METRICS.get(name, ("", ""))[0], **of_each}
