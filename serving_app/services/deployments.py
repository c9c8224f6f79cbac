"""What people do with deployments. Each verb writes rows and asks for a reconciliation; `placement` does the rest."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.db.models.functions import Now

from model_core.errors import CheckpointError, ConfigError, UnknownName
from model_core.serving.engines import ENGINES
from r1platform.lib.transitions import IllegalTransition
from r1platform.models import Project
from r1platform.services import audit
from serving_app.artifacts import refuse_if_unusable
from serving_app.asking import ask_to_reconcile
from serving_app.gateway.routing import TABLE
from serving_app.models import DELETED_NAME, Deployment, DeploymentRevision, ImportedModel, Served, served_of
from serving_app.sleeping import deployment_wake
from serving_app.states import DeploymentState
from serving_app.texts import refuse_unstorable
from serving_app.transitions import deployment_refresh, deployment_transition
from training_app.models import Checkpoint
from training_app.reward_models import refuse_reward_model

MAX_REPLICAS = 16
MIN_IDLE_SECONDS, MAX_IDLE_SECONDS = 60, 7 * 86_400
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}"
_NAME_RULE = "Use 1 to 80 letters, digits, “-” and “_”, beginning with a letter or digit."


@transaction.atomic
def deployment_create(
    *,
    project: Project,
    user: User,
    name: str,
    checkpoint: Checkpoint | None = None,
    imported_model: ImportedModel | None = None,
    engine: str,
    engine_config: dict[str, Any] | None = None,
    replicas: int = 1,
    description: str = "",
    idle_seconds: int = 0,
) -> Deployment:
    """A deployment with its first revision, of a checkpoint or an imported model; it sleeps after `idle_seconds` without a
    request, never with 0.

    Raises ConfigError or CheckpointError at the field that is wrong.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"“{name}” cannot be a model's name. {_NAME_RULE}", field="name")
    if re.search(DELETED_NAME, name):
        raise ConfigError(f"“{name}” ends as the names of deleted deployments do. Choose another name.", field="name")
    _check_replicas(replicas, lowest=1)
    _check_idle(idle_seconds)
    served = chosen(checkpoint, imported_model)
    resolved = engine_resolved(project, served, engine, engine_config)
    try:
        with transaction.atomic():
            deployment = Deployment.objects.create(
                project=project, name=name, description=description, desired_replicas=replicas, created_by=user,
                idle_seconds=idle_seconds,
            )  # fmt: skip
    except IntegrityError:
        raise ConfigError(name_taken(name), field="name") from None
    deployment.refresh_from_db()
    revision_add(deployment, user, served, engine, resolved)
    detail = {"engine": engine, served.kind: served.artifact.pk, "replicas": replicas}
    deployment_audit(deployment, user, "deployment.create", **detail)
    ask_to_reconcile(deployment.pk)
    return deployment


@transaction.atomic
def deployment_start(*, deployment: Deployment, user: User, replicas: int | None = None) -> None:
    """Starts a stopped, failed or sleeping deployment again, with as many replicas as before where no number is given.

    Raises IllegalTransition in any other state.
    """
    locked = deployment_locked(deployment)
    wanted = (locked.desired_replicas or locked.replicas_before_stop) if replicas is None else replicas
    _check_replicas(wanted, lowest=1)
    if not deployment_transition(
        deployment=locked, to=DeploymentState.PENDING, reason="Started by a person.", user=user,
        fields={"desired_replicas": wanted, "is_asleep": False, "woken_at": Now()},
    ):  # fmt: skip
        raise IllegalTransition("Deployment", locked.pk, locked.state, DeploymentState.PENDING)
    deployment_audit(locked, user, "deployment.start", replicas=wanted)
    ask_to_reconcile(locked.pk)


@transaction.atomic
def deployment_stop(*, deployment: Deployment, user: User) -> None:
    """Stops all replicas; requests that run are finished first, up to the grace time. Raises IllegalTransition."""
    locked = deployment_locked(deployment)
    if not deployment_transition(
        deployment=locked, to=DeploymentState.STOPPING, reason="Stopped by a person.", user=user,
        fields={"desired_replicas": 0, "replicas_before_stop": locked.desired_replicas, "is_asleep": False},
    ):  # fmt: skip
        raise IllegalTransition("Deployment", locked.pk, locked.state, DeploymentState.STOPPING)
    deployment_audit(locked, user, "deployment.stop")
    deployment_refresh(deployment_id=locked.pk)
    ask_to_reconcile(locked.pk)


@transaction.atomic
def deployment_scale(*, deployment: Deployment, user: User, replicas: int) -> None:
    """Sets the wanted number of replicas; 0 stops, a number starts what was stopped."""
    _check_replicas(replicas, lowest=0)
    locked = deployment_locked(deployment)
    if replicas == 0:
        deployment_stop(deployment=locked, user=user)
    elif locked.state == DeploymentState.STOPPED:
        deployment_start(deployment=locked, user=user, replicas=replicas)
    elif locked.state == DeploymentState.STOPPING:
        raise IllegalTransition("Deployment", locked.pk, locked.state, DeploymentState.PENDING)
    else:
        Deployment.objects.filter(pk=locked.pk).update(desired_replicas=replicas)
        deployment_audit(locked, user, "deployment.scale", before=locked.desired_replicas, after=replicas)
        deployment_refresh(deployment_id=locked.pk)
        ask_to_reconcile(locked.pk)


@transaction.atomic
def deployment_idle(*, deployment: Deployment, user: User, idle_seconds: int) -> None:
    """Sets after how many seconds without a request it sleeps; with 0 it never does, and wakes if it sleeps now."""
    _check_idle(idle_seconds)
    locked = deployment_locked(deployment)
    Deployment.objects.filter(pk=locked.pk).update(idle_seconds=idle_seconds)
    if not idle_seconds:
        deployment_wake(locked.pk, user=user, reason="It is not to sleep any more.")
    deployment_audit(locked, user, "deployment.idle", before=locked.idle_seconds, after=idle_seconds)
    deployment_refresh(deployment_id=locked.pk)


@transaction.atomic
def deployment_update(*, deployment: Deployment, user: User, description: str) -> None:
    """Changes what is only shown."""
    refuse_unstorable(description, "description")
    if len(description) > 2000:
        raise ConfigError(
            f"The description has {len(description)} characters; at most 2000 fit. Shorten it.", field="description"
        )
    Deployment.objects.filter(pk=deployment.pk).update(description=description)
    deployment_audit(deployment, user, "deployment.update")


@transaction.atomic
def deployment_delete(*, deployment: Deployment, user: User) -> None:
    """Takes the name away at once and stops what runs; requests that run are finished, usage and conversations stay."""
    locked = deployment_locked(deployment)
    if locked.state not in {DeploymentState.STOPPING, DeploymentState.STOPPED}:
        deployment_transition(
            deployment=locked, to=DeploymentState.STOPPING, reason="Deleted by a person.", user=user,
            fields={"desired_replicas": 0, "is_asleep": False},
        )  # fmt: skip
    suffix = f"--deleted-{locked.pk}"
    Deployment.objects.filter(pk=locked.pk).update(deleted_at=Now(), name=locked.name[: 80 - len(suffix)] + suffix)
    deployment_audit(locked, user, "deployment.delete", name=locked.name)
    transaction.on_commit(TABLE.expire)
    deployment_refresh(deployment_id=locked.pk)
    ask_to_reconcile(locked.pk)


def name_taken(name: str) -> str:
    """The refusal of a name that another deployment has, of whatever project."""
    return (
        f"There is a deployment “{name}” already. Model names are shared by all projects, because they are the address of "
        "a model. Choose another name."
    )


def deployment_locked(deployment: Deployment) -> Deployment:
    """The row as it is now, held until the transaction ends."""
    return (
        Deployment.objects.select_for_update(of=("self",))
        .select_related("project")
        .get(pk=deployment.pk, deleted_at=None)
    )


def _check_replicas(replicas: int, *, lowest: int) -> None:
    if not lowest <= replicas <= MAX_REPLICAS:
        raise ConfigError(f"{lowest} to {MAX_REPLICAS} replicas are possible, not {replicas}.", field="replicas")


def _check_idle(idle_seconds: int) -> None:
    if idle_seconds and not MIN_IDLE_SECONDS <= idle_seconds <= MAX_IDLE_SECONDS:
        raise ConfigError(
            f"{MIN_IDLE_SECONDS} to {MAX_IDLE_SECONDS} seconds without a request are possible before it sleeps, or 0 for never, "
            f"not {idle_seconds}.", field="idle_seconds",
        )  # fmt: skip


def chosen(checkpoint: Checkpoint | None, imported_model: ImportedModel | None) -> Served:
    """The one given; an imported model is held, so that nobody removes it meanwhile. Raises ConfigError for none and both."""
    if checkpoint is not None and imported_model is not None:
        raise ConfigError("A checkpoint or an imported model is served, not both. Empty one of the fields.", field="imported_model")
    if imported_model is not None:
        return served_of(ImportedModel.objects.select_for_update(of=("self",)).select_related("project").get(pk=imported_model.pk))
    if checkpoint is None:
        raise ConfigError("Choose a checkpoint or an imported model.", field="checkpoint")
    return served_of(checkpoint)


def engine_resolved(project: Project, served: Served, engine: str, engine_config: dict[str, Any] | None) -> dict[str, Any]:
    """The complete settings of the engine. Raises ConfigError, CheckpointError or UnknownName at the field that is wrong."""
    artifact, kind = served.artifact, served.kind
    if served.project.pk != project.pk:
        words = kind.replace("_", " ")
        raise CheckpointError(f"The {words} belongs to another project. Choose one of this project.", field=kind)
    if isinstance(artifact, Checkpoint):
        refuse_reward_model(artifact, field=kind)
    refuse_if_unusable(artifact)
    try:
        config_class = ENGINES.get(engine).Config
    except UnknownName as error:
        raise UnknownName(error.message, field="engine") from None
    if isinstance(artifact, ImportedModel) and (why := artifact.refused_by.get(engine)):
        raise ConfigError(why, field="engine")
    resolved: dict[str, Any] = config_class.parse(engine_config or {}, prefix="engine_config").resolved()
    return resolved


def revision_add(
    deployment: Deployment, user: User, served: Served, engine: str, resolved: dict[str, Any], **fields: Any
) -> DeploymentRevision:
    """The next revision as a row."""
    last = deployment.revisions.aggregate(number=Max("number"))["number"] or 0
    revision = DeploymentRevision.objects.create(
        deployment=deployment, number=last + 1, engine=engine, engine_config=resolved, created_by=user,
        **{served.kind: served.artifact}, **fields,
    )  # fmt: skip
    revision.refresh_from_db()
    return revision


def deployment_audit(deployment: Deployment, user: User, action: str, **detail: Any) -> None:
    audit(user=user, project=deployment.project, action=action, target=f"deployment:{deployment.pk}", detail=detail)
