"""Lets a deployment sleep that nobody asks, and wakes it for the next question.

Asleep, no replica is wanted and no device is held; the number that people want stays. Who asks wakes it and waits: the
gateway in its queue (`gateway.waking`), an answer of the playground as for any model that comes up.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Max, Value
from django.db.models.functions import Now
from django.utils import timezone

from serving_app.asking import ask_to_reconcile
from serving_app.models import Deployment, DeploymentBenchmark, Message
from serving_app.observed import asleep_words, coming_revision, live_replicas
from serving_app.states import GENERATION_ENDS, MOVING_BENCHMARKS, DeploymentState
from serving_app.transitions import deployment_transition

LONGEST = timedelta(hours=1)
"""A request that runs for longer holds it awake while it runs, and no longer."""
AWAKE = frozenset({DeploymentState.READY, DeploymentState.DEGRADED})


def sleep_step(deployment_id: int) -> None:
    """Puts the deployment to sleep when it may sleep and nobody has asked for long enough."""
    may_sleep = Deployment.objects.filter(
        pk=deployment_id, idle_seconds__gt=0, is_asleep=False, desired_replicas__gt=0, state__in=AWAKE
    )
    if not may_sleep.exists():
        return
    with transaction.atomic():
        deployment = may_sleep.select_for_update().first()
        if deployment is None or not _is_idle(deployment):
            return
        deployment_transition(
            deployment=deployment, to=DeploymentState.ASLEEP, reason=asleep_words(deployment), fields={"is_asleep": True}
        )


@transaction.atomic
def deployment_wake(deployment_id: int, *, user: User | None = None, reason: str = "Somebody asks.") -> None:
    """Has a deployment started that is asleep; one that is not is left alone, so any number may call at once."""
    deployment = Deployment.objects.select_for_update().filter(pk=deployment_id, is_asleep=True, deleted_at=None).first()
    if deployment is None:
        return
    deployment_transition(
        deployment=deployment, to=DeploymentState.PENDING, reason=reason, user=user,
        fields={"is_asleep": False, "woken_at": Now()},
    )  # fmt: skip
    ask_to_reconcile(deployment_id)


def _is_idle(deployment: Deployment) -> bool:
    if coming_revision(deployment) is not None:
        return False
    if DeploymentBenchmark.objects.filter(deployment=deployment, state__in=MOVING_BENCHMARKS).exists():
        return False
    replicas = live_replicas(deployment)
    if any(replica.metrics.get("running") or replica.metrics.get("queued") for replica in replicas):
        return False
    if Message.objects.filter(deployment=deployment, role="assistant").exclude(state__in=GENERATION_ENDS).exists():
        return False
    return _last_asked(deployment) < timezone.now() - timedelta(seconds=deployment.idle_seconds)


def _last_asked(deployment: Deployment) -> datetime:
    """When a request last ended, or when it last became ready to take one. A row is as old as the beginning of its request."""
    since = timezone.now() - timedelta(seconds=deployment.idle_seconds) - LONGEST
    recent = deployment.usage.filter(created_at__gte=since).order_by()
    ended = ExpressionWrapper(F("created_at") + F("seconds") * Value(timedelta(seconds=1)), DateTimeField())
    moments: list[datetime | None] = [
        deployment.created_at,
        deployment.woken_at,
        recent.aggregate(at=Max(ended))["at"],
        *(replica.ready_at for replica in live_replicas(deployment)),
    ]
    return max(moment for moment in moments if moment is not None)
