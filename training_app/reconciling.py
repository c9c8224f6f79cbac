"""Looks for attempts that nobody looks after any more: adopts them on a node that lives, gives them up on one that died."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db.models import F
from django.db.models.functions import Now

from r1platform.lib.leases import NODE_ALIVE, leases_release
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Node
from training_app.asking import ask_to_supervise
from training_app.models import RunAttempt
from training_app.scheduling import holder_of
from training_app.states import LIVE_ATTEMPTS, LIVE_RUNS, AttemptState, RunState
from training_app.transitions import attempt_transition, run_transition

logger = logging.getLogger(__name__)
SILENT = timedelta(seconds=15)
"""A supervisor that has not written for longer is taken for dead; another adopts its trainer."""
LOST = timedelta(seconds=150)
"""After this long without its node an attempt is given up."""


def reconcile_once() -> None:
    """One look at every live attempt."""
    up = set(Node.objects.filter(heartbeat_at__gt=Now() - NODE_ALIVE).values_list("pk", flat=True))
    silent = RunAttempt.objects.filter(state__in=LIVE_ATTEMPTS, heartbeat_at__lt=Now() - SILENT)
    for attempt in silent.select_related("node", "run"):
        if attempt.node_id in up:
            _have_adopted(attempt)
        else:
            _give_up(attempt)


def _have_adopted(attempt: RunAttempt) -> None:
    taken = RunAttempt.objects.filter(pk=attempt.pk, fence=attempt.fence, heartbeat_at__lt=Now() - SILENT).update(
        fence=F("fence") + 1, supervisor_pid=None, supervisor_started_at=None, heartbeat_at=Now()
    )
    if taken:
        logger.warning("%s has a silent supervisor; %s adopts it.", attempt, attempt.node.name)
        ask_to_supervise(attempt.pk, attempt.fence + 1, node_name=attempt.node.name)


def _give_up(attempt: RunAttempt) -> None:
    """The node is silent too: nothing can be proven, so the run is lost until a person or the node says more."""
    gone = RunAttempt.objects.filter(pk=attempt.pk, heartbeat_at__lt=Now() - LOST)
    if not gone.exists():
        return
    reason = f"The node {attempt.node.name} has not been heard of since {attempt.heartbeat_at:%H:%M:%S} UTC."
    try:
        RunAttempt.objects.filter(pk=attempt.pk).update(fence=F("fence") + 1)
        attempt_transition(attempt=attempt, to=AttemptState.LOST, reason=reason)
        leases_release(holder=holder_of(attempt))
        if attempt.run.state in LIVE_RUNS:
            run_transition(run=attempt.run, to=RunState.LOST, reason=reason)
    except IllegalTransition:
        logger.info("%s has moved on meanwhile.", attempt)
