"""Celery tasks of serving: all under a second, all harmless when they run twice."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Coalesce, Now

from r1platform.lib.processes import spawn
from r1platform.lib.storage import replica_dir
from serving_app.benchmarking import benchmarks_reconcile, benchmarks_start
from serving_app.importing import import_check_start, imports_reconcile
from serving_app.models import Message, UsageRecord
from serving_app.placement import deployments_to_reconcile, reconcile_deployment
from serving_app.services.conversations import message_interrupt
from serving_app.spending_alerts import spending_look
from serving_app.states import GENERATION_ENDS

SILENT_ANSWER = timedelta(seconds=15)
"""An answer, or a request, whose heartbeat is older belongs to a web process that is gone."""


@shared_task(name="serving_app.tasks.reconcile")
def reconcile() -> None:
    """Looks at every deployment, and at every import, answer and request that has gone silent."""
    for deployment_id in deployments_to_reconcile():
        reconcile_deployment(deployment_id)
    imports_reconcile()
    reap_answers()
    reap_requests()
    benchmarks()


@shared_task(name="serving_app.tasks.reconcile_one")
def reconcile_one(deployment_id: int) -> None:
    """Looks at one deployment, right after something was asked of it."""
    reconcile_deployment(deployment_id)


@shared_task(name="serving_app.tasks.benchmarks")
def benchmarks() -> None:
    """Ends benchmarks whose process is gone, and starts one that waits."""
    benchmarks_reconcile()
    benchmarks_start()


@shared_task(name="serving_app.tasks.spending")
def spending() -> None:
    """Calls people for keys that come near their money."""
    spending_look()


@shared_task(name="serving_app.tasks.check_import")
def check_import(import_id: int, fence: int) -> None:
    """Starts the process that hashes an imported model on this node."""
    import_check_start(import_id, fence)


@shared_task(name="serving_app.tasks.supervise")
def supervise(replica_id: int, fence: int) -> None:
    """Starts the supervisor of a replica on this node; one that comes second finds the row taken and ends."""
    spawn(
        [sys.executable, "manage.py", "supervise_replica", str(replica_id), "--fence", str(fence)],
        cwd=settings.BASE_DIR,
        env=os.environ,
        log=replica_dir(replica_id) / "supervisor.log",
    )


def reap_answers() -> int:
    """Marks silent answers as interrupted and returns how many there were."""
    live = Message.objects.filter(~Q(state__in=GENERATION_ENDS), role="assistant")
    silent = live.annotate(heard=Coalesce("heartbeat_at", "created_at")).filter(heard__lt=Now() - SILENT_ANSWER)
    return sum(message_interrupt(message=message) for message in silent.only("pk", "conversation_id"))


def reap_requests() -> int:
    """Ends in the usage what a web process was killed with, as it was last written; returns how many there were."""
    running = UsageRecord.objects.filter(status=UsageRecord.RUNNING, heartbeat_at__lt=Now() - SILENT_ANSWER)
    return running.update(status=UsageRecord.INTERRUPTED, heartbeat_at=None)
