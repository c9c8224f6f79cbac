"""Readings of alerts and their rules."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, F, Q, QuerySet

from r1platform.access import for_user
from r1platform.models import Project
from training_app.models import Alert, AlertRule, MetricSeries, PhaseRun

Reader = User | AnonymousUser


def alert_rule_list(*, user: Reader, project: Project) -> QuerySet[AlertRule]:
    """Rules of a project with how many of their alerts are open."""
    rules = for_user(AlertRule.objects.filter(project=project), user)
    counted = rules.annotate(num_open=Count("alerts", filter=Q(alerts__resolved_at=None)))
    return counted.select_related("run", "webhook").prefetch_related("mail_to")


def alert_list(*, user: Reader, project: Project, is_open: bool | None = None) -> QuerySet[Alert]:
    """Alerts of a project, newest first."""
    alerts = for_user(Alert.objects.filter(project=project), user)
    if is_open is not None:
        alerts = alerts.filter(resolved_at__isnull=is_open)
    return alerts.select_related("run", "api_key", "rule", "resolved_by").order_by("-id")


def run_alerts(run: PhaseRun) -> QuerySet[Alert]:
    """Every alert of a run, open ones first, then the newest."""
    return run.alerts.select_related("rule", "resolved_by").order_by(F("resolved_at").desc(nulls_first=True), "-id")


def open_alerts(run: PhaseRun) -> QuerySet[Alert]:
    """What is open in a run, newest first."""
    return run.alerts.filter(resolved_at=None).order_by("-id")


def alert_metric_names(*, project: Project) -> list[str]:
    """Metrics that the newest runs of the project have told, to choose from."""
    newest = list(PhaseRun.objects.filter(project=project).order_by("-id").values_list("pk", flat=True)[:20])
    return list(MetricSeries.objects.filter(run__in=newest).order_by("name").values_list("name", flat=True).distinct())
