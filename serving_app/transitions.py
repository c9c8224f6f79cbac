"""The only writers of the states of deployments, revisions, replicas, imports, answers, reviews and benchmarks.

A deployment's state follows from its replicas (`observed`): every move of a replica ends with `deployment_refresh`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Coalesce, Now

from r1platform.lib.live import publish
from r1platform.lib.transitions import transition
from serving_app.gateway.routing import TABLE
from serving_app.models import (
    BenchmarkTransition,
    Deployment,
    DeploymentBenchmark,
    DeploymentRevision,
    DeploymentTransition,
    ImportedModel,
    Judgement,
    Message,
    Replica,
    ReplicaTransition,
    RevisionTransition,
)
from serving_app.observed import observed
from serving_app.states import (
    BENCHMARK_MOVES,
    DEPLOYMENT_MOVES,
    GENERATION_MOVES,
    IMPORT_MOVES,
    MOVING_BENCHMARKS,
    REPLICA_ENDS,
    REPLICA_MOVES,
    REVIEW_MOVES,
    REVISION_MOVES,
    BenchmarkState,
    DeploymentState,
    ReplicaState,
    ReviewState,
)


def deployment_transition(
    *,
    deployment: Deployment,
    to: str,
    reason: str = "",
    user: User | None = None,
    fields: Mapping[str, Any] | None = None,
) -> bool:
    """Moves the deployment and tells its pages. Raises IllegalTransition."""
    pk, project_id = deployment.pk, deployment.project_id

    def tell() -> None:
        TABLE.expire()
        for group in (f"overview.{project_id}", f"deployment.{pk}"):
            publish(group, "deployment", deployment=pk, state=str(to), reason=reason)

    return transition(
        Deployment, pk=pk, to=to, moves=DEPLOYMENT_MOVES, history=DeploymentTransition, link="deployment",
        reason=reason, user=user, fields=fields, on_commit=tell,
    )  # fmt: skip


def revision_transition(
    *,
    revision: DeploymentRevision,
    to: str,
    share: int,
    reason: str,
    user: User | None = None,
    fields: Mapping[str, Any] | None = None,
) -> bool:
    """Moves the revision and the percent of the requests it gets; a new step begins. Raises IllegalTransition.

    Called by `takeover.takeover_apply`, which keeps one revision current and the deployment's state true.
    """
    deployment_id, number = revision.deployment_id, revision.number

    def tell() -> None:
        TABLE.expire()
        publish(f"deployment.{deployment_id}", "revision", deployment=deployment_id, revision=number, state=str(to))

    return transition(
        DeploymentRevision, pk=revision.pk, to=to, moves=REVISION_MOVES, history=RevisionTransition, link="revision",
        reason=reason, user=user, fields={"share": share, "step_started_at": Now(), **(fields or {})}, on_commit=tell,
    )  # fmt: skip


@transaction.atomic
def replica_transition(
    *,
    replica: Replica,
    to: str,
    reason: str = "",
    user: User | None = None,
    fields: Mapping[str, Any] | None = None,
    fence: int | None = None,
) -> bool:
    """Moves the replica, then its deployment after it. Raises IllegalTransition, StaleFence."""
    deployment = replica.revision.deployment
    pk, number = replica.pk, replica.number

    def tell() -> None:
        for group in (f"overview.{deployment.project_id}", f"deployment.{deployment.pk}"):
            publish(group, "replica", deployment=deployment.pk, replica=pk, number=number, state=str(to), reason=reason)

    times: dict[str, Any] = {}
    if to in REPLICA_ENDS:
        times["finished_at"] = Now()
    if to == ReplicaState.READY:
        times["ready_at"] = Coalesce("ready_at", Now())
    moved = transition(
        Replica, pk=pk, to=to, moves=REPLICA_MOVES, history=ReplicaTransition, link="replica", reason=reason,
        user=user, fields={**times, **(fields or {})}, fence=fence, on_commit=tell,
    )  # fmt: skip
    if moved:
        deployment_refresh(deployment_id=deployment.pk)
    return moved


def import_transition(
    *, imported: ImportedModel, to: str, reason: str, fields: Mapping[str, Any] | None = None, fence: int | None = None
) -> bool:
    """Moves an imported model. Raises IllegalTransition, StaleFence."""
    pk, project_id = imported.pk, imported.project_id

    def tell() -> None:
        publish(f"overview.{project_id}", "import", imported_model=pk, state=str(to), reason=reason)

    return transition(
        ImportedModel, pk=pk, to=to, moves=IMPORT_MOVES, history=None, reason=reason, fields=fields, fence=fence, on_commit=tell
    )


def message_transition(
    *, message_id: int, conversation_id: int, to: str, reason: str = "", fields: Mapping[str, Any] | None = None
) -> bool:
    """Moves an answer; `fields` carry what was written so far. Raises IllegalTransition when it has ended."""
    told = {name: (fields or {})[name] for name in ("seq", "usage") if name in (fields or {})}

    def tell() -> None:
        publish(f"chat.{conversation_id}", "state", message=message_id, state=str(to), reason=reason, **told)

    return transition(
        Message, pk=message_id, to=to, moves=GENERATION_MOVES, history=None, reason=reason,
        fields={"heartbeat_at": Now(), **(fields or {})}, on_commit=tell,
    )  # fmt: skip


def judgement_transition(*, judgement_id: int, to: str, reason: str = "", user: User | None = None) -> bool:
    """Moves a judgement in its review; who moved it last, and when, stays with it. Raises IllegalTransition."""
    is_open = to == ReviewState.PENDING
    fields = {"reviewed_by": None if is_open else user, "reviewed_at": None if is_open else Now()}
    return transition(
        Judgement, pk=judgement_id, to=to, moves=REVIEW_MOVES, history=None, reason=reason, user=user, fields=fields
    )


def benchmark_transition(
    *, benchmark: DeploymentBenchmark, to: str, reason: str = "", user: User | None = None, fields: Mapping[str, Any] | None = None
) -> bool:
    """Moves a benchmark and tells the pages of its project. Raises IllegalTransition."""
    pk, deployment_id, project_id = benchmark.pk, benchmark.deployment_id, benchmark.deployment.project_id
    values: dict[str, Any] = {"waiting_reason": ""}
    if to == BenchmarkState.RUNNING:
        values["started_at"] = Now()
    if to not in MOVING_BENCHMARKS:
        values |= {"finished_at": Now(), "level_now": 0}

    def tell() -> None:
        publish(f"overview.{project_id}", "benchmark", benchmark=pk, deployment=deployment_id, state=str(to), reason=reason)

    moved = transition(
        DeploymentBenchmark, pk=pk, to=to, moves=BENCHMARK_MOVES, history=BenchmarkTransition, link="benchmark", reason=reason,
        user=user, fields={**values, **(fields or {})}, on_commit=tell,
    )  # fmt: skip
    benchmark.state = BenchmarkState(to)
    return moved


@transaction.atomic
def deployment_refresh(*, deployment_id: int) -> str:
    """Brings the deployment's state in line with its replicas and returns it; the reason is kept true in between."""
    deployment = Deployment.objects.select_for_update().get(pk=deployment_id)
    to, reason = observed(deployment)
    for step in _path(deployment.state, to):
        deployment_transition(deployment=deployment, to=step, reason=reason)
        deployment.state = step
    if reason != deployment.state_reason:
        Deployment.objects.filter(pk=deployment_id, state=deployment.state).update(state_reason=reason)
    return deployment.state


def _path(current: str, to: str) -> list[str]:
    """The moves from `current` to `to`: one, or two through starting or stopping; none when there is no such way."""
    if current == to:
        return []
    if to in DEPLOYMENT_MOVES[current]:
        return [to]
    for middle in (DeploymentState.STARTING, DeploymentState.STOPPING):
        if middle in DEPLOYMENT_MOVES[current] and to in DEPLOYMENT_MOVES[middle]:
            return [middle, to]
    return []
