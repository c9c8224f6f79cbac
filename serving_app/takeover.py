"""Carries out how a revision takes over: one function moves revisions, for the reconciler's round and for people alike.

Whoever calls holds the row of the deployment, so of two editors, or of an editor and the round, the second sees what the
first has done. Replicas are not touched here: routing follows the revisions, `placement` starts and stops.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from serving_app.models import Deployment, DeploymentRevision
from serving_app.observed import coming_revision, current_revision, live_replicas
from serving_app.shifting import WHOLE, Decision, decide
from serving_app.states import RevisionState
from serving_app.transitions import deployment_refresh, revision_transition


def takeover_step(deployment_id: int) -> None:
    """Moves the revision that is on its way as far as its answers and replicas allow, if there is one."""
    if coming_revision(Deployment(pk=deployment_id)) is None:
        return
    with transaction.atomic():
        wanted = Deployment.objects.select_for_update().filter(pk=deployment_id, desired_replicas__gt=0, is_asleep=False)
        deployment = wanted.first()
        candidate = coming_revision(deployment) if deployment is not None else None
        if deployment is None or candidate is None:
            return
        if (decision := decide(deployment, candidate, live_replicas(deployment))) is not None:
            takeover_apply(deployment=deployment, revision=candidate, decision=decision)


@transaction.atomic
def takeover_apply(
    *, deployment: Deployment, revision: DeploymentRevision, decision: Decision, user: User | None = None, **fields: Any
) -> None:
    """Moves `revision`; when it becomes the current one, the one before it is replaced in the same moment."""
    if decision.to == RevisionState.CURRENT and (before := current_revision(deployment)) is not None:
        reason = f"Revision {revision.number} has taken over."
        revision_transition(revision=before, to=RevisionState.RETIRED, share=0, reason=reason, user=user)
    reason = decision.reason
    if decision.share and decision.share < WHOLE:
        reason = f"{decision.share} % of the requests. {reason}"
    share, reason = decision.share, reason.strip()
    revision_transition(revision=revision, to=decision.to, share=share, reason=reason, user=user, fields=fields)
    deployment_refresh(deployment_id=deployment.pk)
