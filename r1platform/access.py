"""Who may see and do what. Every query of the product starts from `for_user`; nothing else decides on ownership."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.db.models import F, Model, QuerySet
from django.http import HttpRequest

from r1platform.models import Membership, Project, Role

M = TypeVar("M", bound=Model)
_ORDER = [Role.VIEWER, Role.EDITOR, Role.OWNER]
_NAME = re.compile(r"[-\w]{1,80}", re.ASCII)
SESSION_PROJECT = "project"
FORM_PROJECT = "in_project"
"""Hidden field by which a form says which project its page shows; `{% project_field %}` writes it."""


def roles_from(role: Role) -> list[Role]:
    """`role` and every role that includes it."""
    return _ORDER[_ORDER.index(role) :]


def for_user(
    queryset: QuerySet[M], user: User | AnonymousUser, *, role: Role = Role.VIEWER, path: str = "project"
) -> QuerySet[M]:
    """Rows whose project, found along `path`, has `user` as a member with at least `role`.

    `path` is "" for projects themselves. Superusers are members like others: an administrator who wants to see a
    project joins it, and the audit says so.
    """
    if not user.is_authenticated:
        return queryset.none()
    memberships = _memberships(user).filter(role__in=roles_from(role)).values("project")
    return queryset.filter(**{f"{path}__in" if path else "pk__in": memberships})


def restrict(user: User, project_id: int | None) -> None:
    """Narrows what `user` may reach during this request to one project: an API key may be bound to it."""
    user.restricted_to = project_id  # type: ignore[attr-defined]


def role_in(user: User | AnonymousUser, project: Project | int) -> Role | None:
    """The user's role in the project, or None for a stranger."""
    if not user.is_authenticated:
        return None
    found = _memberships(user).filter(project=project).values_list("role", flat=True).first()
    return Role(found) if found else None


def signed_in(request: HttpRequest) -> User:
    """The user of a request that the middleware let through; pages are for signed-in users."""
    assert isinstance(request.user, User), "LoginRequiredMiddleware lets nobody else through"
    return request.user


def require_role(user: User | AnonymousUser, project: Project, role: Role, *, even_archived: bool = False) -> None:
    """Raises PermissionDenied with a sentence unless `user` has at least `role` in `project`, and it is not archived."""
    held = role_in(user, project)
    if held is None:
        raise PermissionDenied("You are not a member of this project; ask one of its owners.")
    if held not in roles_from(role):
        raise PermissionDenied(f"This needs the role {role.label.lower()}; you are {held.label.lower()} of “{project.name}”.")
    if project.archived_at is not None and role != Role.VIEWER and not even_archived:
        raise PermissionDenied(f"“{project.name}” is archived and can only be looked at; an owner can bring it back in Settings.")


def current_project(request: HttpRequest) -> Project | None:
    """The project that a form's page showed, else `?project=<slug or id>`, else the remembered one, else the first.

    The first two are remembered. None for a user without any membership; a project of others is treated as if it did
    not exist. Raises PermissionDenied for a form of a project that the user is no member of: it must not act on another.
    """
    projects = for_user(Project.objects.all(), request.user, path="")
    if form_project := request.POST.get(FORM_PROJECT, ""):
        found = project_named(projects, form_project)
        if found is None:
            raise PermissionDenied("You are not a member of the project that this page shows; ask one of its owners.")
        request.session[SESSION_PROJECT] = found.pk
        return found
    if (found := project_named(projects, request.GET.get("project", ""))) is not None:
        request.session[SESSION_PROJECT] = found.pk
        return found
    remembered: Any = request.session.get(SESSION_PROJECT)
    if remembered is not None and (found := projects.filter(pk=remembered).first()) is not None:
        return found
    return projects.order_by(F("archived_at").desc(nulls_first=True), "pk").first()


def project_named(projects: QuerySet[Project], name: str) -> Project | None:
    """The one of `projects` with this id or slug; None also for a text that can be neither."""
    if not _NAME.fullmatch(name):
        return None
    return (projects.filter(pk=int(name)).first() if _is_id(name) else None) or projects.filter(slug=name).first()


def _memberships(user: User) -> QuerySet[Membership]:
    memberships = Membership.objects.filter(user=user)
    only = getattr(user, "restricted_to", None)
    return memberships if only is None else memberships.filter(project=only)


def _is_id(text: str) -> bool:
    return text.isdigit() and len(text) < 18
