"""What operators ask of the whole platform: what waits for a device and why, and what is stuck since when.

Devices are everybody's, so the queue is told whole; of other projects only that there is something. “Stuck” means that
who should speak is silent, or that an end that was asked for has not come: never that something takes long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import DurationField, ExpressionWrapper, F, Max, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from r1platform.access import for_user
from r1platform.lib.leases import NODE_ALIVE
from r1platform.models import DeviceLease, Node, Project
from serving_app.models import Replica, ReplicaTransition
from serving_app.states import ReplicaState
from training_app.models import DatasetVersion, PhaseRun, RunAttempt, RunTransition
from training_app.preparation import SILENT as PREPARATION_SILENT
from training_app.reconciling import SILENT
from training_app.states import LIVE_ATTEMPTS, AttemptState, Desired, RunState, VersionState

Reader = User | AnonymousUser
STOPPING = timedelta(minutes=2)
"""A checkpoint of a large model takes its time; after this long a person may want to look."""
RISING = timedelta(minutes=30)
"""As long as an engine's start may last (`serving_app.supervisor.STARTUP_SECONDS`)."""
_RISING = [ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.WARMING]
HIDDEN = "Its members see why."
STUCK_KINDS = ("node", "supervisor", "stopping", "lease", "preparation", "replica")


def queue_list(*, user: Reader) -> list[dict[str, Any]]:
    """Queued runs of the whole platform in the order in which they get devices, each with why it waits and since when."""
    moves = RunTransition.objects.filter(run=OuterRef("pk"), after=RunState.QUEUED).values("run")
    queued = PhaseRun.objects.filter(state=RunState.QUEUED, desired=Desired.RUN).annotate(
        since=Coalesce(Subquery(moves.annotate(at_last=Max("at")).values("at_last")), F("created_at"))
    )
    mine = set(for_user(Project.objects.all(), user, path="").values_list("pk", flat=True))
    return [
        {
            "place": place,
            "run": run.pk if run.project_id in mine else None,
            "name": run.name if run.project_id in mine else "",
            "project": run.project.slug if run.project_id in mine else None,
            "num_devices": run.num_processes,
            "reason": (run.waiting_reason or "The scheduler has not looked at it yet.") if run.project_id in mine else HIDDEN,
            "since": run.since,
        }
        for place, run in enumerate(queued.select_related("project").order_by("pk"), 1)
    ]


def stuck_list(*, user: Reader) -> list[dict[str, Any]]:
    """What is stuck, the longest first: kind, what it is, why, since when, and what will or can be done."""
    mine = set(for_user(Project.objects.all(), user, path="").values_list("pk", flat=True))
    found = [_as_seen(item, mine) for item in stuck_things()]
    return sorted(found, key=lambda item: item["since"])


def stuck_things() -> Iterator[dict[str, Any]]:
    """Everything that is stuck, whoever owns it; `kind` is one of STUCK_KINDS."""
    yield from _nodes()
    yield from _attempts()
    yield from _leases()
    yield from _versions()
    yield from _replicas()


def _nodes() -> Iterator[dict[str, Any]]:
    silent = Node.objects.filter(Q(heartbeat_at=None) | Q(heartbeat_at__lt=Now() - NODE_ALIVE))
    for node in silent.filter(devices__leases__released_at=None, devices__leases__isnull=False).distinct():
        yield _item("node", f"Node {node.name}", node.heartbeat_at or node.created_at, None,
                    "Nothing is heard of it and its devices are held.",
                    "Start its worker: it adopts what runs, or frees the devices.")  # fmt: skip


def _attempts() -> Iterator[dict[str, Any]]:
    live = RunAttempt.objects.filter(state__in=LIVE_ATTEMPTS).select_related("run", "node")
    for attempt in live.filter(heartbeat_at__lt=Now() - SILENT):
        yield _item("supervisor", f"Run {attempt.run_id}, {attempt.run.name}", attempt.heartbeat_at, attempt.run.project_id,
                    f"Its supervisor on {attempt.node.name} has written nothing since.",
                    "Its node adopts it within seconds; without the node it is given up as lost.", run=attempt.run_id)  # fmt: skip
    for attempt in live.filter(state=AttemptState.STOPPING, stop_asked_at__lt=Now() - STOPPING):
        yield _item("stopping", f"Run {attempt.run_id}, {attempt.run.name}", attempt.stop_asked_at, attempt.run.project_id,
                    "It was asked to end and has not yet: it may be writing its checkpoint.",
                    "After ten minutes its processes are ended; its log says what it does.", run=attempt.run_id)  # fmt: skip


def _leases() -> Iterator[dict[str, Any]]:
    held = DeviceLease.objects.filter(released_at=None, holder__startswith="attempt:").select_related("device__node")
    by_attempt: dict[int, list[DeviceLease]] = {}
    for lease in held:
        by_attempt.setdefault(int(lease.holder.removeprefix("attempt:")), []).append(lease)
    ended = RunAttempt.objects.filter(pk__in=by_attempt).exclude(state__in=LIVE_ATTEMPTS).select_related("run")
    for attempt in ended.filter(finished_at__lt=Now() - SILENT):
        devices = ", ".join(str(lease.device) for lease in by_attempt[attempt.pk])
        yield _item("lease", f"Run {attempt.run_id}, {attempt.run.name}", attempt.finished_at, attempt.run.project_id,
                    f"It is over and still holds {devices}.",
                    "The node frees them once it has proven that the processes are gone.", run=attempt.run_id)  # fmt: skip


def _versions() -> Iterator[dict[str, Any]]:
    preparing = DatasetVersion.objects.filter(state=VersionState.PREPARING, heartbeat_at__lt=Now() - PREPARATION_SILENT)
    for version in preparing.select_related("dataset"):
        yield _item("preparation", str(version), version.heartbeat_at, version.dataset.project_id,
                    "The process that prepares it has written nothing since.",
                    "It is started again by its node.", version=[version.dataset_id, version.number])  # fmt: skip


def _replicas() -> Iterator[dict[str, Any]]:
    moved = ReplicaTransition.objects.filter(replica=OuterRef("pk")).order_by("-pk").values("at")[:1]
    rows = Replica.objects.annotate(since=Coalesce(Subquery(moved), F("created_at"))).select_related("revision__deployment")
    late = Q(state__in=_RISING, since__lt=Now() - RISING) | Q(state=ReplicaState.UNREACHABLE)
    may_drain = ExpressionWrapper(F("drain_seconds") * Value(timedelta(seconds=1)), output_field=DurationField())
    late |= Q(state=ReplicaState.STOPPING, since__lt=Now() - STOPPING - F("may_drain"))
    for replica in rows.annotate(may_drain=may_drain).filter(late):
        deployment = replica.revision.deployment
        yield _item("replica", f"Deployment {deployment.name}, replica {replica.number}", replica.since, deployment.project_id,
                    replica.state_reason or f"It is {replica.get_state_display().lower()} since then.",
                    "Its log says what the engine does; stop the deployment, or wait for its supervisor.",
                    deployment=deployment.pk)  # fmt: skip


def _item(
    kind: str, what: str, since: datetime | None, project: int | None, why: str, remedy: str, **link: Any
) -> dict[str, Any]:
    found = {"kind": kind, "what": what, "since": since or timezone.now(), "why": why, "remedy": remedy, "project": project}
    return {**found, "run": None, "version": None, "deployment": None, **link}


def _as_seen(item: dict[str, Any], mine: Iterable[int]) -> dict[str, Any]:
    """Of another project's things only the kind and the time."""
    if item["project"] is None or item["project"] in mine:
        return item
    hidden = {"what": "Something of another project", "why": HIDDEN, "remedy": ""}
    return {**item, **hidden, "project": None, "run": None, "version": None, "deployment": None}
