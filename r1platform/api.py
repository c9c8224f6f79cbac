"""The REST API's ground: the router, schema and docs, and resources that belong to a project.

Who may call is decided in `r1platform.api_access`. Resources of the plumbing are in `r1platform.resources`; each app
adds its own with `register(router)` in its `api`.
Errors become problem details in `r1platform.problems`.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.urls import path
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework import exceptions, viewsets
from rest_framework.request import Request
from rest_framework.routers import DefaultRouter

from r1platform.access import for_user, project_named, require_role
from r1platform.api_access import ApiKeyAuthentication, ScopePermission, SessionAuthentication, SessionOnly
from r1platform.api_requests import careful
from r1platform.models import Project, Role
from r1platform.paging import CursorPaging
from r1platform.problems import exception_handler as ProblemDetailsHandler  # noqa: N812
from r1platform.rooms import modules

__all__ = [
    "ApiKeyAuthentication", "CursorPaging", "ProblemDetailsHandler", "ProjectViewSet", "ScopePermission",
    "SessionAuthentication", "SessionOnly", "router", "urls", "wanted_project",
]  # fmt: skip


class Router(DefaultRouter):
    """Every resource that is registered can be asked carefully."""

    include_format_suffixes = False

    def register(self, prefix: str, viewset: type[Any], basename: str | None = None) -> None:  # type: ignore[override]
        super().register(prefix, careful(viewset), basename)


router = Router(use_regex_path=True)


class ProjectViewSet(viewsets.GenericViewSet[Any]):
    """A resource that belongs to a project: strangers get 404, who may only look gets 403 on a change.

    `project_path` leads from a row to its project, `write_role` is needed for unsafe methods on a row.
    """

    project_path = "project"
    write_role = Role.EDITOR
    filterset_fields: Any = None

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset().none()
        return for_user(super().get_queryset(), _user(self.request), path=self.project_path)

    def project_of(self, obj: Model) -> Project:
        found: Any = obj
        for name in filter(None, self.project_path.split("__")):
            found = getattr(found, name)
        assert isinstance(found, Project), f"{type(self).__name__}.project_path does not lead to a project"
        return found


def wanted_project(request: Request, *, role: Role = Role.EDITOR) -> Project:
    """The project that the body (or query) names by `project`, an id or slug; the only one of the user when unnamed.

    Raises ValidationError at the field `project`, PermissionDenied when the role is not enough.
    """
    user = _user(request)
    data = request.data if isinstance(request.data, dict) else {}
    named = str(data.get("project") or request.query_params.get("project") or "")
    mine = for_user(Project.objects.all(), user, path="")
    if named:
        found = project_named(mine, named)
        if found is None:
            raise exceptions.ValidationError({"project": f"There is no project “{named[:80]}” that you are a member of."})
    else:
        several = list(mine.filter(archived_at=None)[:2])
        if len(several) != 1:
            sentence = "Say which project: you are a member of several." if several else "You have no project; create one first."
            raise exceptions.ValidationError({"project": sentence})
        found = several[0]
    require_role(user, found, role)
    return found


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes the keys."""

    target_class = "r1platform.api_access.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A key of the form r1_…; make one in Settings."}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes the session."""

    target_class = "r1platform.api_access.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


class Schema(SpectacularAPIView):
    """OpenAPI 3.1 of everything here."""

    permission_classes = [ScopePermission]


class Docs(SpectacularSwaggerSplitView):
    """The schema as pages in the platform's theme; its scripts come out of a package, so it needs no network."""

    permission_classes = [ScopePermission]
    template_name = "r1platform/api_docs.html"
    url_name = "schema"
    url_self = None


def urls() -> list[Any]:
    """Everything under /api/v1/."""
    if not router.registry:
        for module in [*modules("resources"), *modules("api", having="register"), *modules("operations_api")]:
            module.register(router)
    return [
        path("schema/", Schema.as_view(), name="schema"),
        path("docs/", login_required(Docs.as_view()), name="docs"),
        *router.urls,
    ]


def _user(request: Any) -> User:
    assert isinstance(request.user, User), "the permission class lets nobody else through"
    return request.user
