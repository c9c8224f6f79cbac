"""Deployments, their replicas and logs, and what can be deployed."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet, TextChoices
from django.utils import timezone

from r1platform.access import for_user
from r1platform.lib.storage import replica_dir
from r1platform.lib.tail import MAX_LOG_BYTES, read_log
from r1platform.models import Project
from serving_app.models import Deployment, Replica, RevisionTransition
from serving_app.observed import live_replicas, recent_failures, traffic
from serving_app.selectors.imports import import_list
from serving_app.states import REVISION_ON_ITS_WAY, DeploymentState, ImportState, RevisionState
from training_app.models import Checkpoint
from training_app.reward_models import PHASE as REWARD_MODEL

MAX_SHOWN = 50


def deployment_list(*, user: User | AnonymousUser, project: Project | None = None) -> QuerySet[Deployment]:
    """Deployments that the user may see and that are not deleted, newest first."""
    found = for_user(Deployment.objects.filter(deleted_at=None), user).select_related("project", "created_by")
    return found if project is None else found.filter(project=project)


def deployment_detail(*, deployment: Deployment) -> dict[str, Any]:
    """The deployment with revisions, replicas (the living ones first) and the failures that count just now."""
    revisions = list(deployment.revisions.select_related("checkpoint__run", "imported_model", "created_by"))
    replicas = Replica.objects.filter(revision__deployment=deployment).select_related("node", "revision")[:MAX_SHOWN]
    shares = {replica.pk: share for replica, share in traffic(live_replicas(deployment))}
    current = next((revision for revision in revisions if revision.state == RevisionState.CURRENT), None)
    rows = [_replica(replica, shares.get(replica.pk, 0)) for replica in replicas]
    return {
        "deployment": deployment,
        "revisions": revisions,
        "replicas": sorted(rows, key=lambda row: (row["finished"], -row["replica"].pk)),
        "current": current,
        "coming": next((revision for revision in revisions if revision.state in REVISION_ON_ITS_WAY), None),
        "failures": recent_failures(current) if current is not None else [],
    }


def deployment_history(deployment: Deployment) -> list[dict[str, Any]]:
    """The last moves of the deployment (its `revision` is None) and of its revisions, newest first, with who and why."""
    own = deployment.transitions.select_related("user").order_by("-id")[:MAX_SHOWN]
    theirs = RevisionTransition.objects.filter(revision__deployment=deployment).select_related("user", "revision")
    rows = [_move(move, None, DeploymentState) for move in own]
    rows += [_move(move, move.revision.number, RevisionState) for move in theirs.order_by("-id")[:MAX_SHOWN]]
    return sorted(rows, key=lambda row: row["at"], reverse=True)[:MAX_SHOWN]


def ready_replicas(deployment: Deployment) -> list[Replica]:
    """The replicas that get the traffic now."""
    return [replica for replica, _share in traffic(live_replicas(deployment))]


def replica_log(replica: Replica, *, offset: int | None = None, max_bytes: int = MAX_LOG_BYTES) -> dict[str, Any]:
    """Output of the engine from `offset`, without one its newest part; `next_offset` goes on from there."""
    return read_log(replica_dir(replica.pk) / "engine.log", offset=offset, max_bytes=max_bytes)


def checkpoints_deployable(*, user: User | AnonymousUser, project: Project) -> QuerySet[Checkpoint]:
    """Checkpoints of the project that are still on disk and write text, newest first."""
    there = Checkpoint.objects.filter(removed_at=None, run__project=project).exclude(run__phase=REWARD_MODEL)
    found = for_user(there, user, path="run__project")
    return found.select_related("run", "attempt").order_by("-id")


def has_deployable(*, user: User | AnonymousUser, project: Project) -> bool:
    """Whether there is anything that a new deployment could serve."""
    imported = import_list(user=user, project=project).filter(state=ImportState.READY)
    return checkpoints_deployable(user=user, project=project).exists() or imported.exists()


def _move(move: Any, revision: int | None, states: type[TextChoices]) -> dict[str, Any]:
    labels = {"before_label": states(move.before).label, "after_label": states(move.after).label}
    user = move.user.get_username() if move.user is not None else None
    told = {"at": move.at, "before": move.before, "after": move.after, "reason": move.reason, "user": user}
    return {"revision": revision, **told, **labels}


def _replica(replica: Replica, share: int) -> dict[str, Any]:
    until = replica.finished_at or timezone.now()
    return {
        "replica": replica,
        "state": replica.state,
        "reason": replica.state_reason,
        "answers": share > 0,
        "share": share,
        "finished": replica.finished_at is not None,
        "uptime_seconds": (until - replica.ready_at).total_seconds() if replica.ready_at else None,
        "metrics": replica.metrics,
    }
