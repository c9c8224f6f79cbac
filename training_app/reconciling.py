"""Looks for attempts that nobody looks after any more: adopts them on a node that lives, gives them up on one that died.

Devices of an attempt that has ended are freed on their own node, once its processes are proven gone there.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from r1platform.lib.leases import NODE_ALIVE, leases_release
from r1platform.lib.processes import ProcessRef, end_unrecorded, group_pids, stop_group
from r1platform.lib.storage import run_dir
from r1platform.models import DeviceLease, Node
from training_app.asking import ask_to_reclaim, ask_to_supervise
from training_app.models import PhaseRun, RunAttempt
from training_app.scheduling import holder_of
from training_app.states import LIVE_ATTEMPTS, LIVE_RUNS, AttemptState, RunState
from training_app.transitions import attempt_transition, run_transition

logger = logging.getLogger(__name__)
SILENT = timedelta(seconds=15)
"""A supervisor that has not written for longer is taken for dead; another adopts its trainer."""
LOST = timedelta(seconds=150)
"""After this long without its node an attempt is given up."""
RECLAIM_SECONDS = 0.5
"""What the trainer of an attempt that was given up gets to end by itself: its run may go on elsewhere already."""


def reconcile_once() -> None:
    """One look at every live attempt, and at the devices of those that have ended.

    Nothing is judged while no node at all is heard of: then this machine slept, or the database was away.
    """
    up = set(Node.objects.filter(heartbeat_at__gt=Now() - NODE_ALIVE).values_list("pk", flat=True))
    if not up:
        return
    silent = RunAttempt.objects.filter(state__in=LIVE_ATTEMPTS, heartbeat_at__lt=Now() - SILENT)
    for attempt in silent.select_related("node", "run"):
        if attempt.node_id in up:
            _have_adopted(attempt)
        else:
            _give_up(attempt)
    for attempt in _ended_holders(up):
        ask_to_reclaim(attempt.pk, node_name=attempt.node.name)


def attempt_reclaim(attempt_id: int) -> None:
    """Ends what an ended attempt has left on this node and frees its devices; leaves a live attempt alone."""
    ended = RunAttempt.objects.exclude(state__in=LIVE_ATTEMPTS).filter(node__name=settings.R1_NODE_NAME)
    attempt = ended.filter(pk=attempt_id).first()
    if attempt is None:
        return
    end_unrecorded(run_dir(attempt.run_id, attempt.number))
    if attempt.trainer_pid is not None and attempt.trainer_started_at is not None:
        ref = ProcessRef(attempt.trainer_pid, attempt.trainer_started_at, attempt.boot_id)
        if not stop_group(ref, grace_seconds=RECLAIM_SECONDS):
            logger.error("%s is over and its processes cannot be ended: %s.", attempt, group_pids(ref))
            return
    if leases_release(holder=holder_of(attempt)):
        logger.warning("%s is over; its devices are free again.", attempt)


def _ended_holders(up: set[int]) -> list[RunAttempt]:
    """Attempts that have ended and still hold devices of a node that is up."""
    held = DeviceLease.objects.filter(released_at=None, device__node__in=up, holder__startswith="attempt:")
    numbers = {int(holder.removeprefix("attempt:")) for holder in held.values_list("holder", flat=True)}
    ended = RunAttempt.objects.filter(pk__in=numbers).exclude(state__in=LIVE_ATTEMPTS)
    return list(ended.select_related("node"))


def _have_adopted(attempt: RunAttempt) -> None:
    taken = RunAttempt.objects.filter(pk=attempt.pk, fence=attempt.fence, heartbeat_at__lt=Now() - SILENT).update(
        fence=F("fence") + 1, supervisor_pid=None, supervisor_started_at=None, heartbeat_at=Now()
    )
    if taken:
        logger.warning("%s has a silent supervisor; %s adopts it.", attempt, attempt.node.name)
        ask_to_supervise(attempt.pk, attempt.fence + 1, node_name=attempt.node.name)


@transaction.atomic
def _give_up(attempt: RunAttempt) -> None:
    """The node is silent too: nothing can be proven, so the run is lost until a person or the node says more.

    Its devices stay held: whether they are free only the node itself can prove, when it is heard of again.
    """
    run = PhaseRun.objects.select_for_update(of=("self",)).get(pk=attempt.run_id)
    gone = RunAttempt.objects.filter(pk=attempt.pk, state__in=LIVE_ATTEMPTS, heartbeat_at__lt=Now() - LOST)
    if not gone.update(fence=F("fence") + 1):
        return
    reason = f"The node {attempt.node.name} has not been heard of since {attempt.heartbeat_at:%H:%M:%S} UTC."
    attempt_transition(attempt=attempt, to=AttemptState.LOST, reason=reason)
    if run.state in LIVE_RUNS:
        run_transition(run=run, to=RunState.LOST, reason=reason)
