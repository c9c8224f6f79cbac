"""What people do with models of others: approve and import a directory, take it off the list. Files are never touched."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from model_core.errors import CheckpointError, ConfigError
from model_core.published import Published
from model_core.published.template import FIELD as TEMPLATE
from model_core.serving.engines import ENGINES
from r1platform.lib.sending import send_on_commit
from r1platform.models import Node, Project
from r1platform.services import audit
from serving_app.model_directories import looked
from serving_app.models import ImportedModel
from serving_app.observed import serving_revisions
from serving_app.states import ImportState


@transaction.atomic
def import_create(*, project: Project, user: User, name: str, chat_template_sha256: str) -> ImportedModel:
    """Imports the directory `name`; it can be deployed once its files are hashed. The digest is that of the chat template that the
    person has seen.

    Raises CheckpointError at `name`, ConfigError with a sentence at each field of the directory that is refused.
    """
    found = looked(name)
    if found.refusals:
        raise refused(found)
    if found.template_sha256 != chat_template_sha256:
        raise ConfigError(
            "The chat template is not the one that you looked at. Look at it again, then approve it.", field=f"{TEMPLATE}_sha256"
        )
    _forget_failed(project, name)
    try:
        with transaction.atomic():
            made = ImportedModel.objects.create(
                project=project, name=name, approved_by=user, architecture=found.architecture, model_type=found.model_type,
                num_parameters=found.num_parameters, stored_as=found.stored_as, context=found.context or None,
                num_bytes=found.num_bytes, chat_template=found.template, chat_template_sha256=found.template_sha256,
                refused_by=engines_refusing(found), state_reason="Its files are hashed.",
            )  # fmt: skip
    except IntegrityError:
        raise ConfigError(f"“{name}” is imported already. Remove that import to take the directory anew.", field="name") from None
    made.refresh_from_db()
    _audit(made, user, "model.import", chat_template_sha256=made.chat_template_sha256, num_bytes=made.num_bytes)
    here = {"queue": settings.R1_NODE_NAME} if Node.objects.filter(name=settings.R1_NODE_NAME).exists() else {}
    send_on_commit("serving_app.tasks.check_import", made.pk, made.fence, **here)
    return made


@transaction.atomic
def import_remove(*, imported: ImportedModel, user: User) -> None:
    """Takes it off the list; the files stay where they are. Raises CheckpointError while a deployment uses it."""
    locked = ImportedModel.objects.select_for_update(of=("self",)).get(pk=imported.pk)
    if locked.removed_at is not None:
        return
    used = serving_revisions(imported_model=locked).select_related("deployment").first()
    if used is not None:
        raise CheckpointError(
            f"{used} of “{used.deployment}” serves it. Delete that deployment, or give it another revision, first.", field="name"
        )
    ImportedModel.objects.filter(pk=locked.pk).update(removed_at=Now())
    _audit(locked, user, "model.remove", sha256=locked.sha256)


def refused(found: Published) -> ConfigError:
    """Everything that stands against it, each at its field."""
    error = ConfigError(found.refusals[0].message, field=found.refusals[0].field)
    error.parts = tuple((one.field, one.message) for one in found.refusals)
    return error


def engines_refusing(found: Published) -> dict[str, str]:
    """Engines that cannot serve it, with the reason."""
    told = {name: engine().refuses(found) for name, engine in ENGINES.items()}
    return {name: why for name, why in told.items() if why}


def _forget_failed(project: Project, name: str) -> None:
    """A try that has failed makes room for the next."""
    ImportedModel.objects.filter(project=project, name=name, state=ImportState.FAILED, removed_at=None).update(removed_at=Now())


def _audit(imported: ImportedModel, user: User, action: str, **detail: object) -> None:
    audit(user=user, project=imported.project, action=action, target=f"imported_model:{imported.pk}",
          detail={"name": imported.name, **detail})  # fmt: skip
