"""What every template knows: the current project, the user's projects and the role; and whose page a page is."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.template import Context
from django.utils.functional import SimpleLazyObject

from r1platform.access import current_project, role_in
from r1platform.models import Project
from r1platform.selectors import project_list

OBJECTS = ("run", "launch", "pipeline", "version", "dataset", "deployment", "conversation")
"""Names by which views give the object of a detail page to its template."""


def project(request: HttpRequest) -> dict[str, Any]:
    """`current_project`, `projects` and `current_role`, each asked of the database only when a template uses it."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    shown: Any = SimpleLazyObject(lambda: current_project(request))
    return {
        "current_project": shown,
        "projects": SimpleLazyObject(lambda: project_list(user=user)),
        "current_role": SimpleLazyObject(lambda: role_in(user, shown.pk) if shown else None),
    }


def shown_project(context: Context) -> Project | None:
    """The project of the object that a detail page shows, when it is one of the user's; else the current one."""
    current: Project | None = context.get("current_project")
    wanted = next((found for name in OBJECTS if (found := _project_id(context.get(name))) is not None), None)
    if wanted is None or (current and current.pk == wanted):
        return current
    return project_list(user=context["request"].user).filter(pk=wanted).first() or current


def _project_id(thing: Any) -> int | None:
    """By its own project, or that of its pipeline or dataset."""
    parts = (thing, getattr(thing, "pipeline", None), getattr(thing, "dataset", None))
    found = (getattr(part, "project_id", None) for part in parts)
    return next((number for number in found if isinstance(number, int)), None)
