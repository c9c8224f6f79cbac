"""Celery tasks of training: all under a second, all harmless when they run twice."""

from __future__ import annotations

import os
import sys

from celery import shared_task
from django.conf import settings

from r1platform.lib.processes import spawn
from r1platform.lib.storage import home
from training_app.alert_messages import alert_mail as mail_try
from training_app.alert_messages import mails_due
from training_app.alerts import alerts_look
from training_app.evaluating import evaluations_reconcile, evaluations_start
from training_app.models import RoutedText
from training_app.preparation import preparations_reconcile, preparations_start
from training_app.reconciling import attempt_reclaim, reconcile_once
from training_app.routes import route_start
from training_app.scheduling import schedule_once


@shared_task(name="training_app.tasks.schedule")
def schedule() -> None:
    """Queues what may run and starts what has devices."""
    preparations_start()
    schedule_once()
    evaluations_start()


@shared_task(name="training_app.tasks.reconcile")
def reconcile() -> None:
    """Has what went silent adopted or given up."""
    preparations_reconcile()
    evaluations_reconcile()
    reconcile_once()


@shared_task(name="training_app.tasks.alerts")
def alerts() -> None:
    """Looks at live runs by the rules of their projects, and tries mails that did not leave."""
    alerts_look()
    for alert_id in mails_due():
        alert_mail.apply_async((alert_id,), expires=30)


@shared_task(name="training_app.tasks.alert_mail")
def alert_mail(alert_id: int) -> None:
    """One try; a mail server may take the seconds of EMAIL_TIMEOUT."""
    mail_try(alert_id)


@shared_task(name="training_app.tasks.route")
def route(routed_id: int) -> None:
    """Starts the process that routes a text on this node."""
    routed = RoutedText.objects.select_related("run", "checkpoint__attempt").filter(pk=routed_id).first()
    if routed is not None:
        route_start(routed)


@shared_task(name="training_app.tasks.reclaim")
def reclaim(attempt_id: int) -> None:
    """Frees the devices of this node that an ended attempt still holds."""
    attempt_reclaim(attempt_id)


@shared_task(name="training_app.tasks.supervise")
def supervise(attempt_id: int, fence: int) -> None:
    """Starts the supervisor of an attempt on this node; one that comes second finds the row taken and ends."""
    spawn(
        [sys.executable, "manage.py", "supervise", str(attempt_id), "--fence", str(fence)],
        cwd=settings.BASE_DIR,
        env=os.environ,
        log=home() / "logs" / f"supervisor-{attempt_id}.log",
    )
