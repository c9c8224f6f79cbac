"""What training has cost: device-time and dollars by run, phase, pipeline and day, what live launches will take, and the forecast.

Device-time is what attempts held devices for. Dollars are at the price that a run was launched with; runs without one are priced
only when the reader says at what.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, F, FloatField, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from model_core.config import RunConfig
from model_core.errors import ModelCoreError
from model_core.planner import count_parameters
from model_core.planner.run import with_vocabulary
from r1platform.access import for_user
from r1platform.models import Device, Project
from training_app.budgets import uses_of
from training_app.models import Evaluation, PhaseRun, RunAttempt
from training_app.published_costs import ARTICLE_ROWS, ARTICLE_SHARES, R1_STAGES, V3_STAGES, Stage
from training_app.selectors.rates import run_shape
from training_app.states import LIVE_RUNS

Reader = User | AnonymousUser
NUM_RUNS = 50
UNSHOWN = ("config", "result", "summary", "progress", "gate_measured", "notes", "tags")
"""What the table of runs does not show, and what most of a row's bytes are."""
BURN_DAYS = 7
"""The forecast goes on as the mean of so many days."""


def cost_report(*, user: Reader, project: Project, since: dt.datetime, price: float | None = None) -> dict[str, Any]:
    """Everything of the page; `price` is that of a device-hour of runs that were launched without one."""
    runs = priced(for_user(PhaseRun.objects.filter(project=project, created_at__gte=since, device_seconds__gt=0), user), price)
    parts = list(_parts(runs))
    total = _sums(parts)
    phases = {row["phase"]: row for row in _by(parts, "phase")}
    costliest = list(runs.select_related("launch__pipeline").defer(*UNSHOWN).order_by("-device_seconds")[:NUM_RUNS])
    asked = for_user(Evaluation.objects.filter(project=project, created_at__gte=since), user)
    days = cost_days(user=user, project=project, since=since, price=price)
    return {
        "total": total,
        "evaluation_seconds": asked.aggregate(total=Sum("device_seconds"))["total"] or 0.0,
        "phases": [
            {**row, "share": row["device_seconds"] / (total["device_seconds"] or 1.0), "article_share": ARTICLE_SHARES.get(name)}
            for name, row in phases.items()
        ],
        "pipelines": _by([one for one in parts if one["launch__pipeline"]], "launch__pipeline", "launch__pipeline__name"),
        "runs": costliest,
        "days": days,
        "forecast": forecast(days),
        "live": live_budgets(user=user, project=project),
        "article": _article(runs, costliest, total),
        "papers": [_paper("DeepSeek-V3", V3_STAGES, phases), _paper("DeepSeek-R1", R1_STAGES, phases)],
    }  # fmt: skip


def price_given(text: str) -> float | None:
    """A positive number of dollars, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value < 1e6 else None


def priced(runs: QuerySet[PhaseRun], price: float | None) -> QuerySet[PhaseRun]:
    """With `cost`: device-hours at the run's own price, else at `price`; null where there is neither."""
    own = F("dollars_per_device_hour")
    hourly = Coalesce(own, Value(price, output_field=FloatField())) if price else own
    return runs.annotate(hourly=hourly).annotate(cost=F("device_seconds") / 3600.0 * F("hourly"))


def cost_days(*, user: Reader, project: Project, since: dt.datetime, price: float | None) -> list[dict[str, Any]]:
    """Device-seconds and dollars of each day, UTC, that a run held devices; an attempt over midnight counts on both days."""
    now = timezone.now()
    attempts = for_user(RunAttempt.objects.filter(run__project=project), user, path="run__project").exclude(started_at=None)
    attempts = attempts.filter(Q(finished_at=None) | Q(finished_at__gte=since)).select_related("run")
    found: dict[dt.date, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in attempts.only("started_at", "finished_at", "run__num_processes", "run__dollars_per_device_hour"):
        assert one.started_at is not None
        hourly = one.run.dollars_per_device_hour or price or 0.0
        for day, seconds in _split(max(one.started_at, since), one.finished_at or now):
            found[day][0] += seconds * one.run.num_processes
            found[day][1] += seconds * one.run.num_processes / 3600 * hourly
    return [{"day": day.isoformat(), "device_seconds": found[day][0], "dollars": found[day][1]} for day in sorted(found)]


def _split(start: dt.datetime, end: dt.datetime) -> list[tuple[dt.date, float]]:
    """The seconds of each UTC day between two moments."""
    parts = []
    while start < end:
        midnight = (start + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        parts.append((start.date(), (min(midnight, end) - start).total_seconds()))
        start = midnight
    return parts


def forecast(days: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the last week, and what this month comes to when it goes on so; days without a run count as zero."""
    today = timezone.now().date()
    first = (today - dt.timedelta(days=BURN_DAYS - 1)).isoformat()
    month = today.replace(day=1)
    left = ((month + dt.timedelta(days=32)).replace(day=1) - today).days - 1
    report: dict[str, Any] = {"days_left": left}
    for unit in ("device_seconds", "dollars"):
        mean = sum(day[unit] for day in days if day["day"] >= first) / BURN_DAYS
        so_far = sum(day[unit] for day in days if day["day"] >= month.isoformat())
        report[unit] = {"a_day": mean, "this_month": so_far, "by_month_end": so_far + mean * left}
    return report


def live_budgets(*, user: Reader, project: Project) -> list[dict[str, Any]]:
    """Runs that hold devices now, each with its nearest limit and where its last step would bring it."""
    runs = for_user(PhaseRun.objects.filter(project=project, state__in=LIVE_RUNS), user).order_by("pk")[:NUM_RUNS]
    return [{"run": run, "uses": uses_of(run)} for run in runs]


def _parts(runs: QuerySet[PhaseRun]) -> QuerySet[PhaseRun, dict[str, Any]]:
    """Sums of each phase of each pipeline: the runs are passed over once, and what is shown is added up from these."""
    return runs.order_by().values("phase", "launch__pipeline", "launch__pipeline__name").annotate(
        device_seconds=Sum("device_seconds"), tokens=Sum("num_tokens"), dollars=Sum("cost"), num_runs=Count("pk"),
        num_unpriced=Count("pk", filter=Q(hourly=None)),
    )  # fmt: skip


def _by(parts: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in parts:
        found[tuple(one[name] for name in names)].append(one)
    rows = [{**dict(zip(names, key, strict=True)), **_sums(of_one)} for key, of_one in found.items()]
    return sorted(rows, key=lambda row: float(row["device_seconds"]), reverse=True)[:NUM_RUNS]


def _sums(parts: list[dict[str, Any]]) -> dict[str, Any]:
    known = [one["dollars"] for one in parts if one["dollars"] is not None]
    return {
        "device_seconds": sum((one["device_seconds"] for one in parts), 0.0), "tokens": sum(one["tokens"] for one in parts),
        "dollars": sum(known) if known else None, "num_runs": sum(one["num_runs"] for one in parts),
        "num_unpriced": sum(one["num_unpriced"] for one in parts),
    }  # fmt: skip


def _article(runs: QuerySet[PhaseRun], costliest: list[PhaseRun], total: dict[str, Any]) -> list[dict[str, Any]]:
    """The article's table with this project's column."""
    cost, active, hardware = ARTICLE_ROWS
    devices = Device.objects.filter(node__attempts__run__in=runs.order_by().values("pk"))
    kinds = devices.order_by("name").values_list("name", flat=True).distinct()
    return [
        {"what": cost[0], "r1": cost[1], "other": cost[2], "own": total["dollars"], "unit": "dollars"},
        {"what": active[0], "r1": active[1], "other": active[2], "own": _active(costliest), "unit": "count"},
        {"what": hardware[0], "r1": hardware[1], "other": hardware[2], "own": ", ".join(kinds), "unit": ""},
    ]


def _active(costliest: list[PhaseRun]) -> int | None:
    """Active parameters of the largest model among the first of these."""
    found = []
    for run in PhaseRun.objects.filter(pk__in=[one.pk for one in costliest[:5]]).select_related("starts_from__run"):
        try:
            config = RunConfig.parse({**run.config, "phase": run.phase})
            found.append(count_parameters(with_vocabulary(run_shape(run), config))[1])
        except ModelCoreError:
            continue
    return max(found, default=None)


def _paper(name: str, stages: tuple[Stage, ...], phases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A paper's table: its stages, their sum, and what the phases of this project that do the same took."""
    rows = []
    for stage in stages:
        own = [phases[one] for one in stage.phases if one in phases]
        rows.append({
            "name": stage.name, "device_hours": stage.device_hours, "dollars": stage.dollars,
            "own_seconds": sum(one["device_seconds"] for one in own) if own else None,
            "own_dollars": sum(known) if (known := [one["dollars"] for one in own if one["dollars"] is not None]) else None,
        })  # fmt: skip
    return {
        "name": name, "source": stages[0].source, "rows": rows, "device_hours": sum(stage.device_hours for stage in stages),
        "dollars": sum(stage.dollars for stage in stages),
    }  # fmt: skip
