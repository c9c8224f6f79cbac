"""Makes what runs equal to what is wanted: one short, repeatable step per deployment.

Compares `wanted_replicas` with the living replicas of the current revision and of one that is to take over, adds and
stops, finds a node for those that are queued, and has silent ones adopted. Two steps at once are one: the second finds the
lock taken and leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import CharField, Count, Exists, F, Max, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat, Now
from django.utils import timezone

from r1platform.lib.leases import NODE_ALIVE, NoDevice, leases_claim
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import DeviceKind, DeviceLease, Node
from serving_app.asking import ask_to_supervise
from serving_app.fit import fit_of, nodes_with_room, place_of
from serving_app.models import Deployment, DeploymentRevision, Replica
from serving_app.observed import coming_revision, current_revision, given_up, live_replicas, num_devices, recent_failures
from serving_app.sleeping import sleep_step
from serving_app.states import REPLICA_ENDS, ReplicaState
from serving_app.takeover import takeover_step
from serving_app.transitions import deployment_refresh, replica_transition

logger = logging.getLogger(__name__)
SILENT = timedelta(seconds=20)
"""A supervisor that has not written for longer is taken for dead; another adopts its engine."""
LOST = timedelta(seconds=150)
"""After this long without its node a replica is given up and replaced."""
DRAIN_SECONDS = 30
"""How long answers may go on when the deployment is stopped."""
UNHURRIED_SECONDS = 900
"""How long answers may go on at a replica that is only replaced, or one too many; longer than any that says something."""
BACKOFF_SECONDS = (1, 2, 5, 15, 30)
_LOCK_CLASS = 0x5E21


def reconcile_deployment(deployment_id: int) -> bool:
    """One step for one deployment; False when another process is at it."""
    takeover_step(deployment_id)
    sleep_step(deployment_id)
    return _reconcile(deployment_id)


@transaction.atomic
def _reconcile(deployment_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [_LOCK_CLASS, deployment_id])
        if not cursor.fetchone()[0]:
            return False
    deployment = Deployment.objects.filter(pk=deployment_id).first()
    if deployment is None:
        return False
    _hear_of_silent(deployment)
    _clear_lost(deployment)
    _meet_wanted(deployment)
    for replica in live_replicas(deployment):
        if replica.state == ReplicaState.QUEUED and not replica.stop_wanted:
            _place(replica)
    deployment_refresh(deployment_id=deployment_id)
    return True


def deployments_to_reconcile() -> list[int]:
    """Deployments that want replicas, still have some, show a state that is on its way, or have lost replicas to clear."""
    living = Replica.objects.exclude(state__in=REPLICA_ENDS).values("revision__deployment")
    lost = _lost(Q()).values("revision__deployment")
    moving = Q(state__in=["pending", "starting", "stopping"])
    wanted = Q(desired_replicas__gt=0, is_asleep=False, deleted_at=None)
    return list(
        Deployment.objects.filter(wanted | Q(pk__in=living) | Q(pk__in=lost) | moving)
        .order_by("pk")
        .values_list("pk", flat=True)
    )


def _meet_wanted(deployment: Deployment) -> None:
    wanted, over = deployment.wanted_replicas, not deployment.desired_replicas
    none = "The deployment is stopped." if over else deployment.state_reason
    living = [r for r in live_replicas(deployment) if not r.stop_wanted]
    kept = [one for one in (current_revision(deployment), coming_revision(deployment)) if one is not None]
    for revision in kept:
        own = [r for r in living if r.revision_id == revision.pk]
        if len(own) < wanted and _may_start(revision):
            _add(revision, wanted - len(own))
        for replica in _surplus(own, len(own) - wanted):
            _stop(replica, "Fewer replicas are wanted." if wanted else none, ends=over)
    for replica in living:
        if replica.revision not in kept:
            _stop(replica, _why_over(replica) if wanted else none, ends=over)
    if over:
        _hasten(deployment)


def _why_over(replica: Replica) -> str:
    """Why a revision that has replicas is to have none."""
    revision = replica.revision
    return f"{revision} is {revision.get_state_display().lower()}. {revision.state_reason}".strip()


def _hasten(deployment: Deployment) -> None:
    """Replicas that were let finish their answers have less time once nothing of the deployment is wanted."""
    draining = Replica.objects.filter(revision__deployment=deployment, stop_wanted=True, drain_seconds__gt=DRAIN_SECONDS)
    draining.exclude(state__in=REPLICA_ENDS).update(drain_seconds=DRAIN_SECONDS)


def _may_start(revision: DeploymentRevision) -> bool:
    """Whether a start is due: not after too many failures, and not before the pause after the last one is over."""
    failures = recent_failures(revision)
    if not failures:
        return True
    if given_up(failures) or failures[0].finished_at is None:
        return False
    pause = BACKOFF_SECONDS[min(len(failures), len(BACKOFF_SECONDS)) - 1]
    return Replica.objects.filter(pk=failures[0].pk, finished_at__lte=Now() - timedelta(seconds=pause)).exists()


def _add(revision: DeploymentRevision, number: int) -> None:
    last = revision.replicas.aggregate(number=Max("number"))["number"] or 0
    for index in range(number):
        Replica.objects.create(revision=revision, number=last + 1 + index)


def _surplus(replicas: list[Replica], number: int) -> list[Replica]:
    """The `number` replicas that are missed least: those that are not ready first, then the youngest."""
    return sorted(replicas, key=lambda r: (r.state == ReplicaState.READY, -r.number))[: max(number, 0)]


def _stop(replica: Replica, reason: str, *, ends: bool) -> None:
    """Ends a queued replica at once; asks the supervisor of any other, which has little time when the deployment `ends`."""
    drain = DRAIN_SECONDS if ends else UNHURRIED_SECONDS
    if replica.state == ReplicaState.QUEUED:
        replica_transition(replica=replica, to=ReplicaState.STOPPED, reason=reason, fields={"stop_wanted": True})
    else:
        Replica.objects.filter(pk=replica.pk).update(stop_wanted=True, state_reason=reason, drain_seconds=drain)


def _place(replica: Replica) -> None:
    """Gives a queued replica a node and has a supervisor started there, or writes down why it waits."""
    try:
        node = _node_for(replica)
    except NoDevice as error:
        Replica.objects.filter(pk=replica.pk, state=ReplicaState.QUEUED).update(state_reason=str(error))
        return
    reason = f"A place on {node.name} was found."
    if replica_transition(
        replica=replica, to=ReplicaState.STARTING, reason=reason, fields={"node": node, "heartbeat_at": Now()}
    ):
        ask_to_supervise(replica.pk, replica.fence, node_name=node.name)


def _node_for(replica: Replica) -> Node:
    """A living node with room for the model, the one that has the files and the emptiest first. Where GPUs exist they are leased.

    Raises NoDevice with the sentence that the page shows.
    """
    busy = Count("replicas", filter=~Q(replicas__state__in=REPLICA_ENDS))
    nodes: list[Any] = list(nodes_with_room().annotate(busy=busy))
    if not nodes:
        raise NoDevice("No node is up: none has sent a heartbeat in the last minute, or all are draining.")
    home = replica.revision.served.node_id
    nodes.sort(key=lambda node: (node.pk != home, node.busy))
    with_gpus = [node for node in nodes if node.gpus]
    roomy = _roomy(replica.revision, with_gpus or nodes)
    return _lease(replica, roomy) if with_gpus else roomy[0]


def _roomy(revision: DeploymentRevision, nodes: Sequence[Node]) -> Sequence[Node]:
    """Those whose devices are large enough, or do not say how large they are. Raises NoDevice when none is."""
    places = [place_of(node) for node in nodes]
    best = fit_of(revision, places)
    if best is None:
        return nodes
    found = [place.node for place in places if replace(best, place=place).fits is not False]
    if not found:
        raise NoDevice(f"No node has room for it: {best.words}")
    return found


def _lease(replica: Replica, nodes: Sequence[Node]) -> Node:
    num = num_devices(replica.revision.engine_config)
    reasons = []
    for node in nodes:
        try:
            leases_claim(holder=holder_of(replica), num=num, node=node, kind=DeviceKind.CUDA)
        except NoDevice as error:
            reasons.append(f"{node.name}: {error}")
        else:
            return node
    raise NoDevice(" ".join(reasons))


def holder_of(replica: Replica) -> str:
    """The name under which a replica holds devices."""
    return f"replica:{replica.pk}"


def _hear_of_silent(deployment: Deployment) -> None:
    """Has replicas adopted whose supervisor is silent; those of a silent node become unreachable, later lost.

    A lost replica keeps its devices: its engine may still run there.
    """
    silent = Replica.objects.filter(revision__deployment=deployment, heartbeat_at__lt=Now() - SILENT)
    rows = silent.exclude(state__in=[*REPLICA_ENDS, ReplicaState.QUEUED]).select_related("node", "revision__deployment")
    up = _nodes_up()
    for replica in rows:
        if replica.node_id in up:
            _have_adopted(replica)
        else:
            _node_is_silent(replica)


def _clear_lost(deployment: Deployment) -> None:
    """Has nodes that are heard again end what their lost replicas left there, and free the devices."""
    for replica in _lost(Q(revision__deployment=deployment)).filter(heartbeat_at__lt=Now() - SILENT, node__in=_nodes_up()):
        _have_adopted(replica)


def _lost(which: Q) -> QuerySet[Replica]:
    """Lost replicas of which it is not proven that they are gone."""
    held = DeviceLease.objects.filter(released_at=None, holder=Concat(Value("replica:"), Cast(OuterRef("pk"), CharField())))
    unproven = Q(engine_pid__isnull=False) | Exists(held)
    return Replica.objects.filter(which, unproven, state=ReplicaState.LOST).select_related("node")


def _nodes_up() -> set[int]:
    return set(Node.objects.filter(heartbeat_at__gt=Now() - NODE_ALIVE).values_list("pk", flat=True))


def _have_adopted(replica: Replica) -> None:
    assert replica.node is not None, "only a queued replica has no node"
    taken = Replica.objects.filter(pk=replica.pk, fence=replica.fence).update(
        fence=F("fence") + 1, supervisor_pid=None, supervisor_started_at=None, heartbeat_at=Now()
    )
    if taken:
        logger.warning("Replica %s has a silent supervisor; %s adopts it.", replica.pk, replica.node.name)
        ask_to_supervise(replica.pk, replica.fence + 1, node_name=replica.node.name)


def _node_is_silent(replica: Replica) -> None:
    name = replica.node.name if replica.node else "?"
    reason = f"The node {name} has not been heard of since {replica.heartbeat_at:%H:%M:%S} UTC."
    gone = replica.heartbeat_at is not None and timezone.now() - replica.heartbeat_at > LOST
    try:
        if gone:
            replica_transition(replica=replica, to=ReplicaState.LOST, reason=reason)
        elif replica.state == ReplicaState.READY:
            replica_transition(replica=replica, to=ReplicaState.UNREACHABLE, reason=reason)
    except IllegalTransition:
        logger.info("Replica %s has moved on meanwhile.", replica.pk)
