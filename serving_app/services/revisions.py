"""What people do with revisions: make one, shift the traffic to it, take it back, go back to an earlier one.

Each verb holds the row of the deployment, checks what it finds there, and lets `takeover` move the revision.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.errors import ConfigError
from serving_app.artifacts import refuse_if_unusable
from serving_app.asking import ask_to_reconcile
from serving_app.models import Deployment, DeploymentRevision, ImportedModel
from serving_app.observed import coming_revision, current_revision, live_replicas
from serving_app.services.deployments import chosen, deployment_audit, deployment_locked, engine_resolved, revision_add
from serving_app.shifting import WHOLE, Decision, ShiftPlan, is_ready
from serving_app.sleeping import deployment_wake
from serving_app.states import DeploymentState, RevisionState
from serving_app.takeover import takeover_apply
from serving_app.texts import refuse_unstorable
from serving_app.transitions import deployment_transition
from training_app.models import Checkpoint

MAX_REASON = 500
_NOTHING_RUNS = frozenset({DeploymentState.STOPPED, DeploymentState.STOPPING, DeploymentState.FAILED})
"""States in which there is nothing that a new revision could stand beside."""


@transaction.atomic
def revision_create(
    *,
    deployment: Deployment,
    user: User,
    checkpoint: Checkpoint | None = None,
    imported_model: ImportedModel | None = None,
    engine: str | None = None,
    engine_config: dict[str, Any] | None = None,
    plan: dict[str, Any] | None = None,
) -> DeploymentRevision:
    """Another checkpoint or imported model, engine or settings under the same name; what is not given stays as it is.

    It starts beside the present one and takes over as `plan` (a `ShiftPlan`) says; at once when nothing runs. Another engine
    without a config takes its defaults. Raises ConfigError or CheckpointError at the field that is wrong.
    """
    locked = deployment_locked(deployment)
    _refuse_second(locked)
    now = _current(locked)
    if engine_config is None and engine in {None, now.engine}:
        engine_config = now.engine_config
    if checkpoint is None and imported_model is None:
        checkpoint, imported_model = now.checkpoint, now.imported_model
    served, engine = chosen(checkpoint, imported_model), engine or now.engine
    resolved = engine_resolved(locked.project, served, engine, engine_config)
    agreed = ShiftPlan.parse(plan or {}, prefix="plan").resolved()
    revision = revision_add(
        locked, user, served, engine, resolved, plan=agreed, state=RevisionState.WARMING, share=0, state_reason="It starts."
    )
    detail = {"number": revision.number, "engine": engine, served.kind: served.artifact.pk, "plan": agreed}
    deployment_audit(locked, user, "deployment.revise", **detail)
    _take_place(locked, revision, user)
    return revision


@transaction.atomic
def revision_shift(*, deployment: Deployment, user: User, number: int, share: int, reason: str = "") -> None:
    """Gives the revision that is on its way `share` percent of the requests; with 100 it has taken over.

    Raises ConfigError at the field when it is another revision, is not ready or has that share already.
    """
    locked = deployment_locked(deployment)
    revision = coming_revision(locked)
    if revision is None or revision.number != number:
        raise ConfigError(f"Revision {number} is not taking over. {_now(locked)}", field="revision")
    if not 1 <= share <= WHOLE:
        raise ConfigError(f"1 to 100 percent of the requests are possible, not {share}.", field="share")
    if share == revision.share:
        raise ConfigError(f"{revision} gets {share} % already.", field="share")
    if not is_ready(locked, revision, live_replicas(locked)):
        raise ConfigError(
            f"{revision} is not ready; requests go to it once all its replicas are. Wait, or roll it back.", field="share"
        )
    to = RevisionState.CURRENT if share == WHOLE else RevisionState.SHIFTING
    decision = Decision(to, share, _said(reason, f"Shifted by {user.get_username()}."))
    takeover_apply(deployment=locked, revision=revision, decision=decision, user=user)
    deployment_audit(locked, user, "deployment.shift", number=number, share=share, before=revision.share)
    ask_to_reconcile(locked.pk)


@transaction.atomic
def revision_rollback(*, deployment: Deployment, user: User, number: int | None = None, reason: str = "") -> None:
    """Takes back the revision that is on its way; with the `number` of an earlier one, goes back to that.

    An earlier one is started again and takes over at once when it is ready. Raises ConfigError when there is nothing to
    take back, or no such earlier revision, CheckpointError when what it served cannot be served any more.
    """
    locked = deployment_locked(deployment)
    coming, now = coming_revision(locked), _current(locked)
    why = _said(reason, f"Rolled back by {user.get_username()}.")
    target = locked.revisions.filter(number=number).first() if number is not None else now
    if target is None or target == (coming or now):
        raise ConfigError(f"There is nothing to go back to with revision {number or now.number}. {_now(locked)}", field="revision")
    if coming is not None:
        back = Decision(RevisionState.ROLLED_BACK, 0, why)
        takeover_apply(deployment=locked, revision=coming, decision=back, user=user)
    if target != now:
        served = chosen(target.checkpoint, target.imported_model)
        refuse_if_unusable(served.artifact)
        plan = ShiftPlan(mode="at_once").resolved()
        again = Decision(RevisionState.WARMING, 0, f"Back to it from revision {now.number}. {why}")
        takeover_apply(deployment=locked, revision=target, decision=again, user=user, plan=plan)
        _take_place(locked, target, user)
    deployment_audit(locked, user, "deployment.rollback", to=target.number, reason=why)
    ask_to_reconcile(locked.pk)


def _take_place(deployment: Deployment, revision: DeploymentRevision, user: User) -> None:
    """Makes it the current one at once where nothing runs, wakes a deployment that sleeps, has one that was given up tried
    again."""
    deployment_wake(deployment.pk, user=user, reason=f"{revision} is to start.")
    if deployment.state == DeploymentState.FAILED:
        reason = f"{revision} is to be tried."
        deployment_transition(deployment=deployment, to=DeploymentState.PENDING, reason=reason, user=user)
    if deployment.state in _NOTHING_RUNS:
        decision = Decision(RevisionState.CURRENT, WHOLE, "Nothing ran when it was chosen.")
        takeover_apply(deployment=deployment, revision=revision, decision=decision, user=user)
    ask_to_reconcile(deployment.pk)


def _current(deployment: Deployment) -> DeploymentRevision:
    now = current_revision(deployment)
    assert now is not None, "a deployment has a current revision from its first moment"
    return now


def _refuse_second(deployment: Deployment) -> None:
    if (coming := coming_revision(deployment)) is not None:
        raise ConfigError(f"{_now(deployment)} Let it take over or roll it back first, then make revision {coming.number + 1}.")


def _now(deployment: Deployment) -> str:
    """What is current and what is on its way."""
    coming = coming_revision(deployment)
    if coming is None:
        return f"{_current(deployment)} is the current one, and none is taking over."
    part = f"gets {coming.share} % of the requests" if coming.share else "is warming up"
    return f"{coming} {part}."


def _said(reason: str, otherwise: str) -> str:
    refuse_unstorable(reason, "reason")
    if len(reason) > MAX_REASON:
        raise ConfigError(f"The reason has {len(reason)} characters; at most {MAX_REASON} fit. Shorten it.", field="reason")
    return reason.strip() or otherwise
