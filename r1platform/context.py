"""What every template knows: the project that is shown, the user's projects and the role."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from r1platform.access import current_project, role_in
from r1platform.selectors import project_list


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
