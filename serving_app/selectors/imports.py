"""Models of others: those that are imported, and what lies under R1_MODELS of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import QuerySet

from model_core.errors import CheckpointError
from model_core.published import Published, Refused
from r1platform.access import for_user
from r1platform.models import Project
from serving_app.model_directories import looked, names_found
from serving_app.models import ImportedModel


@dataclass(frozen=True)
class Found:
    """A directory under R1_MODELS, and its import in the project if it has one."""

    name: str
    published: Published
    imported: ImportedModel | None = None


def import_list(*, user: User | AnonymousUser, project: Project | None = None) -> QuerySet[ImportedModel]:
    """Imports that the user may see and that are not removed, newest first."""
    found = for_user(ImportedModel.objects.filter(removed_at=None), user).select_related("project", "node", "approved_by")
    return found if project is None else found.filter(project=project)


def models_found(*, project: Project) -> list[Found]:
    """Every directory there is, by name."""
    imported = {row.name: row for row in ImportedModel.objects.filter(project=project, removed_at=None)}
    return [Found(name, _looked(name), imported.get(name)) for name in names_found()]


def _looked(name: str) -> Published:
    try:
        return looked(name)
    except CheckpointError as error:
        return Published(refusals=(Refused("files", error.message),))
