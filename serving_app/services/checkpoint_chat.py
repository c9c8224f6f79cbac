"""A chat with a checkpoint: the deployment that serves it, made or started when there is none that answers."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import OuterRef, Subquery

from model_core.errors import EngineError
from model_core.serving.engines import ENGINES
from r1platform.models import Project
from serving_app.models import Conversation, Deployment, DeploymentRevision
from serving_app.services.conversations import conversation_create, message_send
from serving_app.services.deployments import deployment_create, deployment_start
from serving_app.states import DeploymentState, RevisionState
from training_app.models import Checkpoint

_LAST_RESORT = (DeploymentState.STOPPED, DeploymentState.FAILED)
IDLE_SECONDS = 600
"""After so long without a question it sleeps, so that looking at many steps does not hold as many devices."""
_FIRST_ENGINE = "builtin"
"""It starts in seconds, which is what somebody wants who looks at one step of many."""


def serving_of(*, project: Project, checkpoint: Checkpoint) -> Deployment | None:
    """The deployment whose current revision serves the checkpoint, one that runs before one that does not."""
    current = DeploymentRevision.objects.filter(deployment=OuterRef("pk"), state=RevisionState.CURRENT)
    found = Deployment.objects.filter(project=project, deleted_at=None).exclude(state=DeploymentState.STOPPING)
    serving = found.annotate(serves=Subquery(current.values("checkpoint"))).filter(serves=checkpoint.pk).order_by("-pk")
    return min(serving, key=lambda one: one.state in _LAST_RESORT, default=None)


def engine_for_a_look() -> str:
    """The engine that a checkpoint is tried on. Raises EngineError when none is installed."""
    usable = [name for name, engine in ENGINES.items() if name != "fake" and engine().installed() is None]
    if not usable:
        raise EngineError("No engine is installed here that could serve a checkpoint.", field="engine")
    return _FIRST_ENGINE if _FIRST_ENGINE in usable else usable[0]


@transaction.atomic
def checkpoint_chat(*, project: Project, user: User, checkpoint: Checkpoint, content: str) -> Conversation:
    """A conversation with the checkpoint, its first message sent; the answer begins when the model is up.

    Raises ConfigError, CheckpointError or EngineError at the field; nothing is then made.
    """
    deployment = serving_of(project=project, checkpoint=checkpoint)
    if deployment is None:
        deployment = deployment_create(
            project=project, user=user, name=_free_name(checkpoint), checkpoint=checkpoint, engine=engine_for_a_look(),
            description="Made to chat with this checkpoint.", idle_seconds=IDLE_SECONDS,
        )  # fmt: skip
    elif deployment.state in _LAST_RESORT:
        deployment_start(deployment=deployment, user=user)
        deployment.refresh_from_db()
    made = conversation_create(project=project, user=user, deployment=deployment)
    message_send(conversation=made, user=user, content=content)
    return made


def _free_name(checkpoint: Checkpoint) -> str:
    name = f"run-{checkpoint.run_id}-step-{checkpoint.step}"
    taken = set(Deployment.objects.filter(name__startswith=name).values_list("name", flat=True))
    return next(one for one in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if one not in taken)
