"""What a deployment's replicas amount to: its state and the sentence beside it, and which failures count.

Pure reading. `placement` starts and stops replicas; `transitions` writes the state that is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet

from serving_app.models import Deployment, DeploymentRevision, Replica
from serving_app.states import REPLICA_ENDS, REVISION_ON_ITS_WAY, DeploymentState, ReplicaState, RevisionState

MAX_FAILURES = 5
"""Failed starts in a row after which a revision is given up until a person asks again."""
_DEVICE_KEYS = ("tensor_parallel_size", "tp_size", "num_devices")
STABLE_SECONDS = 60
"""A replica that was ready for longer starts the count anew when it dies."""


def observed(deployment: Deployment) -> tuple[str, str]:
    """State and reason that follow from the replicas as they are now."""
    replicas = list(live_replicas(deployment))
    if deployment.is_asleep:
        return DeploymentState.ASLEEP, asleep_words(deployment)
    if deployment.desired_replicas == 0:
        return _ending(replicas)
    ready = [replica for replica, _share in traffic(replicas)]
    revision = current_revision(deployment)
    failures = recent_failures(revision) if revision is not None else []
    if ready:
        return _serving(deployment, replicas, ready, failures)
    why = next((_words(r) for r in replicas if r.state_reason), failures[0].state_reason if failures else "")
    if given_up(failures) and not replicas:
        return DeploymentState.FAILED, why
    if deployment.state in {DeploymentState.READY, DeploymentState.DEGRADED}:
        return DeploymentState.DEGRADED, f"No replica is ready. {why}".strip()
    if any(r.state != ReplicaState.QUEUED for r in replicas):
        return DeploymentState.STARTING, why
    return DeploymentState.PENDING, why


def asleep_words(deployment: Deployment) -> str:
    """Why it sleeps and what wakes it."""
    minutes = deployment.idle_seconds / 60
    return f"Nobody asked for {minutes:g} minute{'' if minutes == 1 else 's'}. It starts at the next question."


def live_replicas(deployment: Deployment) -> list[Replica]:
    """Replicas of all revisions that have not ended, newest revision first."""
    found = Replica.objects.filter(revision__deployment=deployment).exclude(state__in=REPLICA_ENDS)
    return list(found.select_related("revision").order_by("-revision__number", "number"))


def serving_revisions(**of: Any) -> QuerySet[DeploymentRevision]:
    """Revisions that answer or may be started without anybody choosing them anew, of deployments that are there; and whatever
    still runs."""
    chosen = Q(state__in=[RevisionState.CURRENT, *REVISION_ON_ITS_WAY], deployment__deleted_at=None)
    running = Q(pk__in=Replica.objects.exclude(state__in=REPLICA_ENDS).values("revision"))
    return DeploymentRevision.objects.filter(chosen | running, **of)


def current_revision(deployment: Deployment) -> DeploymentRevision | None:
    """The revision that the deployment stands on."""
    return deployment.revisions.filter(state=RevisionState.CURRENT).first()


def coming_revision(deployment: Deployment) -> DeploymentRevision | None:
    """The revision that is to take over, if there is one."""
    return deployment.revisions.filter(state__in=REVISION_ON_ITS_WAY).first()


def traffic(replicas: Sequence[Replica]) -> list[tuple[Replica, int]]:
    """The replicas that answer, each with the percent of the requests that its revision gets.

    One that takes over shares with the current one. When neither has a replica ready, whatever else is ready answers.
    """
    ready = [r for r in replicas if r.state == ReplicaState.READY and not r.stop_wanted]
    meant = [r for r in ready if r.revision.share > 0]
    if not meant:
        return [(replica, 100) for replica in ready]
    coming = next((r.revision.share for r in meant if r.revision.state == RevisionState.SHIFTING), 0)
    return [(r, coming if r.revision.state == RevisionState.SHIFTING else 100 - coming) for r in meant]


def num_devices(engine_config: dict[str, Any]) -> int:
    """Devices that one replica with this configuration holds."""
    split = int(next((engine_config[key] for key in _DEVICE_KEYS if engine_config.get(key)), 1))
    return split * int(engine_config.get("data_parallel_size") or 1)


def recent_failures(revision: DeploymentRevision) -> list[Replica]:
    """Replicas that failed or were lost in a row, newest first, since a person last asked for a start or it began a step."""
    asked = revision.deployment.transitions.filter(after=DeploymentState.PENDING).order_by("-id").first()
    moments = [revision.created_at, revision.step_started_at, asked.at if asked else None]
    since: datetime = max(moment for moment in moments if moment is not None)
    ended = Replica.objects.filter(revision=revision, finished_at__gte=since).exclude(
        Q(state=ReplicaState.STOPPED) & Q(stop_wanted=True)
    )
    failures: list[Replica] = []
    for replica in ended.order_by("-finished_at", "-id")[: MAX_FAILURES * 4]:
        if replica.state not in {ReplicaState.FAILED, ReplicaState.LOST} or _was_stable(replica):
            break
        failures.append(replica)
    return failures


def given_up(failures: Sequence[Replica]) -> bool:
    """Whether no further start is worth it."""
    return len(failures) >= MAX_FAILURES or any(replica.permanent for replica in failures)


def _ending(replicas: Sequence[Replica]) -> tuple[str, str]:
    if not replicas:
        return DeploymentState.STOPPED, ""
    return DeploymentState.STOPPING, f"{_count(len(replicas))} still to end."


def _serving(
    deployment: Deployment, replicas: Sequence[Replica], ready: Sequence[Replica], failures: Sequence[Replica]
) -> tuple[str, str]:
    current = [r for r in ready if r.revision.state == RevisionState.CURRENT]
    if len(current) >= deployment.desired_replicas:
        return DeploymentState.READY, ""
    if not current:
        why = failures[0].state_reason if failures else ""
        reason = f"No replica of the current revision is ready; revision {ready[0].revision.number} answers. {why}"
        return DeploymentState.DEGRADED, reason.strip()
    serving = current[0].revision_id
    waiting = next((r for r in replicas if r.state != ReplicaState.READY and r.revision_id == serving), None)
    why = _words(waiting) if waiting is not None else (failures[0].state_reason if failures else "")
    return DeploymentState.DEGRADED, f"{len(current)} of {deployment.desired_replicas} replicas are ready. {why}".strip()


def _was_stable(replica: Replica) -> bool:
    if replica.ready_at is None or replica.finished_at is None:
        return False
    return replica.finished_at - replica.ready_at > timedelta(seconds=STABLE_SECONDS)


def _words(replica: Replica) -> str:
    label = replica.get_state_display().lower()
    return f"Replica {replica.number} is {label}{': ' + replica.state_reason if replica.state_reason else '.'}"


def _count(number: int) -> str:
    return "One replica has" if number == 1 else f"{number} replicas have"
