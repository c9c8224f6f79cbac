"""Which deployments serve what a checkpoint was made from: those that its own is compared with, or takes the place of."""

from __future__ import annotations

from r1platform.models import Project
from serving_app.models import Deployment, DeploymentRevision
from serving_app.states import ANSWERING, RevisionState
from training_app.models import Checkpoint
from training_app.selectors import checkpoint_ancestors


def formers_of(checkpoint: Checkpoint, *, project: Project) -> list[Deployment]:
    """The project's deployments whose current revision serves an ancestor of the checkpoint, the nearest first."""
    places = {pk: place for place, pk in enumerate(checkpoint_ancestors(checkpoint))}
    if not places:
        return []
    current = DeploymentRevision.objects.filter(
        state=RevisionState.CURRENT, checkpoint__in=places, deployment__project=project, deployment__deleted_at=None
    )
    found = sorted(current.select_related("deployment"), key=lambda one: (places[one.checkpoint_id or 0], -one.deployment_id))
    return [one.deployment for one in found]


def former_of(revision: DeploymentRevision, *, project: Project) -> Deployment | None:
    """The deployment to compare a revision with, one that answers; None when nothing that it was made from is served so."""
    if revision.checkpoint is None:
        return None
    found = formers_of(revision.checkpoint, project=project)
    return next((one for one in found if one.pk != revision.deployment_id and one.state in ANSWERING), None)
