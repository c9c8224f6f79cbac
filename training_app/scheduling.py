"""Decides what runs next: waiting phases whose sources succeeded are queued, queued runs get devices in order.

First in, first out: a run that does not fit now keeps its place, and those behind it say so; one that is too large for
every node that is up lets the others pass. One scheduler at a time, by an advisory lock; every pass is one short
transaction a run and can be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Max, QuerySet
from django.db.models.functions import Now

from r1platform.lib.leases import NODE_ALIVE, NoDevice, leases_claim
from r1platform.models import Node
from training_app.asking import ask_to_supervise
from training_app.models import Checkpoint, PhaseRun, PipelinePhase, RunAttempt
from training_app.reward_models import reward_phase, rewarded_by
from training_app.states import Desired, LaunchState, RunState, VersionState
from training_app.transitions import run_transition

logger = logging.getLogger(__name__)
_LOCK = 0x5E22


def schedule_once() -> int:
    """One pass; returns how many attempts were started. 0 as well when another scheduler is at it."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
            if not cursor.fetchone()[0]:
                return 0
        for run in _waiting():
            _advance(run)
        return _start_queued()


def holder_of(attempt: RunAttempt) -> str:
    """The name under which an attempt holds devices."""
    return f"attempt:{attempt.pk}"


def _waiting() -> Iterator[PhaseRun]:
    runs = PhaseRun.objects.filter(state=RunState.WAITING, desired=Desired.RUN, launch__state=LaunchState.RUNNING)
    rows = runs.select_related("pipeline_phase__starts_from", "pipeline_phase__rollouts_from").order_by("pk")
    yield from rows.select_for_update(of=("self",), skip_locked=True)


def _advance(run: PhaseRun) -> None:
    """Queues a waiting run once every phase that it builds on has succeeded, with their checkpoints as its inputs."""
    phase = run.pipeline_phase
    if phase is None:
        run_transition(run=run, to=RunState.STOPPED, reason="Its phase was deleted from the pipeline.")
        return
    found: dict[str, Any] = {}
    for column, name in _sources(run, phase):
        before = PhaseRun.objects.filter(launch=run.launch_id, pipeline_phase__name=name).order_by("-pk").first()
        if before is None or before.state != RunState.SUCCEEDED:
            _say_waiting(run, f"Waits for {name}.")
            return
        checkpoint = final_checkpoint(before)
        if checkpoint is None:
            _say_waiting(run, f"{name} succeeded but has no checkpoint on disk; run it again.")
            return
        found[column] = rewarded_by(run.config, checkpoint) if column == "config" else checkpoint
    run_transition(run=run, to=RunState.QUEUED, reason="The phases before it succeeded.", fields=found)


def _sources(run: PhaseRun, phase: PipelinePhase) -> Iterator[tuple[str, str]]:
    """(column, phase) of everything that the run waits for; a reward model goes into its configuration."""
    for column in ("starts_from", "rollouts_from"):
        source: PipelinePhase | None = getattr(phase, column)
        if source is not None:
            yield column, source.name
    if judge := reward_phase(run.config):
        yield "config", judge


def final_checkpoint(run: PhaseRun) -> Checkpoint | None:
    """The checkpoint that counts as a run's result: the one it was rolled back to, else its newest final one that is on disk, else
    the newest of all."""
    if run.result_checkpoint is not None and run.result_checkpoint.removed_at is None:
        return run.result_checkpoint
    kept = run.checkpoints.filter(removed_at=None)
    return kept.filter(is_final=True).order_by("-pk").first() or kept.order_by("-step", "-pk").first()


def _start_queued() -> int:
    """Gives devices to queued runs in order, until one has to wait for them."""
    started = 0
    blocked: PhaseRun | None = None
    largest = nodes_up().aggregate(largest=Max("num_devices"))["largest"] or 0
    queued = PhaseRun.objects.filter(state=RunState.QUEUED, desired=Desired.RUN).select_related(
        "dataset_version__dataset"
    )
    for run in queued.select_for_update(of=("self",), skip_locked=True).order_by("pk"):
        if why := _not_ready(run):
            _say_waiting(run, why)
        elif run.num_processes > largest > 0:
            _say_waiting(run, f"It asks for {run.num_processes} devices and the largest node that is up has {largest}.")
        elif blocked is not None:
            _say_waiting(run, f"Waits behind run {blocked.pk}, which is before it in the queue.")
        else:
            try:
                _start(run)
                started += 1
            except NoDevice as error:
                _say_waiting(run, str(error))
                blocked = run
    return started


def _not_ready(run: PhaseRun) -> str:
    """Why the run's data is not there yet; empty when it is."""
    version = run.dataset_version
    if version is None or version.state == VersionState.READY:
        return ""
    if version.state in {VersionState.FAILED, VersionState.STOPPED}:
        reason = f"{version} is {version.get_state_display().lower()}: {version.state_reason}"
        run_transition(run=run, to=RunState.FAILED, reason=reason)
        return reason
    return f"Waits for {version} to be prepared."


def nodes_up() -> QuerySet[Node]:
    """Nodes that take work, each with `num_devices`."""
    up = Node.objects.filter(draining=False, heartbeat_at__gt=Now() - NODE_ALIVE)
    return up.annotate(num_devices=Count("devices")).order_by("name")


@transaction.atomic
def _start(run: PhaseRun) -> RunAttempt:
    """Makes the next attempt with its devices and has a supervisor started. Raises NoDevice and leaves nothing."""
    number = (run.attempts.aggregate(number=Max("number"))["number"] or 0) + 1
    nodes = list(nodes_up())
    if not nodes:
        raise NoDevice("No node is up: none has sent a heartbeat in the last minute, or all are draining.")
    reasons = []
    for node in _nearest_first(run, nodes):
        try:
            with transaction.atomic():
                attempt = RunAttempt.objects.create(run=run, number=number, node=node, heartbeat_at=Now())
                leases_claim(holder=holder_of(attempt), num=run.num_processes, node=node)
        except NoDevice as error:
            reasons.append(str(error) if len(nodes) == 1 else f"{node.name}: {error}")
            continue
        run_transition(
            run=run, to=RunState.STARTING, reason=f"Attempt {number} starts on {node.name}.",
            fields={"progress": {}, "result": None},
        )  # fmt: skip
        ask_to_supervise(attempt.pk, attempt.fence, node_name=node.name)
        return attempt
    raise NoDevice(" ".join(reasons))


def _nearest_first(run: PhaseRun, nodes: list[Node]) -> list[Node]:
    """Nodes that hold the files which the run reads come first: its own earlier attempts', then its start's."""
    own = run.attempts.order_by("-number").values_list("node_id", flat=True).first()
    start = run.starts_from.attempt.node_id if run.starts_from else None
    return sorted(nodes, key=lambda node: (node.pk != own, node.pk != start, node.name))


def _say_waiting(run: PhaseRun, why: str) -> None:
    if run.waiting_reason != why:
        PhaseRun.objects.filter(pk=run.pk).update(waiting_reason=why)
