"""Running evaluations: each in a process of its own under a small supervisor that is adopted when it dies.

A checkpoint is asked on a leased device of a node that has its files, an endpoint from any node. The supervisor's proof of
ownership is its own pid and start time in the evaluation's row; the process is found again by its pid, start time and boot.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.leases import NODE_ALIVE, NoDevice, leases_claim, leases_release
from r1platform.lib.processes import ProcessRef, end_unrecorded, spawn, started_at, stop_group
from r1platform.lib.storage import evaluation_dir
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import DeviceLease, Node
from training_app.evaluation_command import is_here
from training_app.models import Evaluation, PhaseRun
from training_app.states import EvaluationState, RunState
from training_app.transitions import evaluation_transition

logger = logging.getLogger(__name__)
MAX_AT_ONCE = 4
"""Evaluations of one node; those of checkpoints end earlier, at its devices."""
POLL_SECONDS = 0.1
SILENT = timedelta(seconds=15)
LOST = timedelta(seconds=150)
"""After this long without its node an evaluation is given up."""
_PREFIX = "evaluation:"


def holder_of(evaluation: Evaluation) -> str:
    """The name under which this start of it holds a device."""
    return f"{_PREFIX}{evaluation.pk}.{evaluation.number}"


def evaluation_of(holder: str) -> int | None:
    """The evaluation that holds under this name; None when it is something else that holds."""
    return int(holder.removeprefix(_PREFIX).partition(".")[0]) if holder.startswith(_PREFIX) else None


def evaluations_start() -> int:
    """Starts queued evaluations that can run on this node, in order; the others say why they wait. Returns how many."""
    node = Node.objects.filter(name=settings.R1_NODE_NAME, draining=False).first()
    if node is None:
        return 0
    room = MAX_AT_ONCE - Evaluation.objects.filter(state=EvaluationState.RUNNING, node=node).count()
    started = 0
    with transaction.atomic():
        queued = Evaluation.objects.select_for_update(of=("self",), skip_locked=True).filter(state=EvaluationState.QUEUED)
        for evaluation in queued.select_related("checkpoint__run", "checkpoint__attempt__node").order_by("pk"):
            why = _why_not(evaluation, node) if started < room else f"Waits: {MAX_AT_ONCE} evaluations run on {node.name} already."
            if why == "" and (why := _start(evaluation, node)) == "":
                started += 1
            elif evaluation.waiting_reason != why:
                Evaluation.objects.filter(pk=evaluation.pk).update(waiting_reason=why)
    return started


def _why_not(evaluation: Evaluation, node: Node) -> str:
    """Why it does not start on this node; a run that came before it gets the devices first."""
    if evaluation.checkpoint is None:
        return ""
    if not is_here(evaluation):
        return f"Waits for the node {evaluation.checkpoint.attempt.node.name}, which has the checkpoint's files."
    first = PhaseRun.objects.filter(state=RunState.QUEUED, created_at__lt=evaluation.created_at).order_by("pk").first()
    return f"Waits behind run {first.pk}, which is before it in the queue." if first else ""


def _start(evaluation: Evaluation, node: Node) -> str:
    """Claims a device and has a supervisor started; returns why that was not possible, else nothing."""
    evaluation.number += 1
    try:
        if evaluation.checkpoint is not None:
            leases_claim(holder=holder_of(evaluation), num=1, node=node)
    except NoDevice as error:
        return str(error)
    evaluation_transition(
        evaluation=evaluation, to=EvaluationState.RUNNING, reason=f"It is asked on {node.name}.",
        fields={"node": node, "number": evaluation.number, "heartbeat_at": Now(), "pid": None, "child_pid": None},
    )  # fmt: skip
    _spawn_supervisor(evaluation)
    return ""


def evaluations_reconcile() -> int:
    """Gives evaluations of this node whose supervisor is silent a new one, gives up those of dead nodes, and frees what ended
    ones still hold here; returns how many it looked after."""
    running = Evaluation.objects.filter(state=EvaluationState.RUNNING)
    silent = running.filter(Q(heartbeat_at__lt=Now() - SILENT) | Q(heartbeat_at=None), node__name=settings.R1_NODE_NAME)
    found = 0
    for evaluation in silent:
        if silent.filter(pk=evaluation.pk, heartbeat_at=evaluation.heartbeat_at).update(pid=None, heartbeat_at=Now()):
            logger.warning("%s has a silent supervisor; it gets another.", evaluation)
            _spawn_supervisor(evaluation)
            found += 1
    dead = running.filter(heartbeat_at__lt=Now() - LOST).exclude(node__heartbeat_at__gt=Now() - NODE_ALIVE)
    for evaluation in dead.exclude(node__name=settings.R1_NODE_NAME).select_related("node"):
        name = evaluation.node.name if evaluation.node else "its node"
        with suppress(IllegalTransition):
            reason = f"{name} has not been heard of. What was answered is kept there."
            evaluation_transition(evaluation=evaluation, to=EvaluationState.LOST, reason=reason)
            found += 1
    return found + _reclaim()


def _reclaim() -> int:
    """Ends what evaluations that do not run have left on this node, and frees their devices."""
    held = DeviceLease.objects.filter(released_at=None, device__node__name=settings.R1_NODE_NAME, holder__startswith=_PREFIX)
    freed = 0
    for holder in set(held.values_list("holder", flat=True)):
        evaluation = Evaluation.objects.filter(pk=evaluation_of(holder) or 0).first()
        if evaluation is None:
            freed += leases_release(holder=holder)
        elif evaluation.state != EvaluationState.RUNNING and not is_supervised(evaluation):
            end_unrecorded(evaluation_dir(evaluation.pk))
            freed += leases_release(holder=holder)
    return freed


def evaluations_release(*, seconds: float = 20.0) -> bool:
    """Ends the evaluations of this node, which is shutting down, and queues them again; says whether all are gone."""
    mine = Evaluation.objects.filter(state=EvaluationState.RUNNING, node__name=settings.R1_NODE_NAME)
    released = []
    for evaluation in mine:
        with suppress(IllegalTransition):  # it has ended in this moment
            evaluation_transition(
                evaluation=evaluation, to=EvaluationState.QUEUED, reason="The node was shut down; it goes on at the next start.",
                fields={"pid": None},
            )  # fmt: skip
            released.append(evaluation)
    deadline = time.monotonic() + seconds
    for evaluation in released:
        while is_supervised(evaluation):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        end_unrecorded(evaluation_dir(evaluation.pk))
        leases_release(holder=holder_of(evaluation))
    return True


def is_supervised(evaluation: Evaluation) -> bool:
    """Whether the supervisor that the row named when it was read still runs here."""
    return evaluation.pid is not None and started_at(evaluation.pid) == evaluation.process_started_at


def evaluation_end(evaluation: Evaluation, ref: ProcessRef | None, *, grace_seconds: float = 2.0) -> bool:
    """Ends its process and frees its device once that is proven gone."""
    gone = stop_group(ref, grace_seconds=grace_seconds) if ref is not None else True
    end_unrecorded(evaluation_dir(evaluation.pk))
    if gone:
        leases_release(holder=holder_of(evaluation))
    return gone


def _spawn_supervisor(evaluation: Evaluation) -> None:
    argv = [sys.executable, "manage.py", "supervise_evaluation", str(evaluation.pk)]
    log = evaluation_dir(evaluation.pk) / "supervisor.log"
    transaction.on_commit(lambda: spawn(argv, cwd=settings.BASE_DIR, env=os.environ, log=log) and None)
