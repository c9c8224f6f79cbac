"""Who calls the REST API and whether they may: denied unless allowed, in this one place.

The settings name these classes, so this module imports no view (`r1platform.api` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from rest_framework import authentication, exceptions, permissions
from rest_framework.request import Request

from r1platform.access import require_role, restrict
from r1platform.keys import api_key_find
from r1platform.models import ApiKey

if TYPE_CHECKING:
    from rest_framework.views import APIView


class ApiKeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer r1_…`; a key bound to a project reaches only that one."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = api_key_find(secret.strip())
        if key is None:
            raise exceptions.AuthenticationFailed("This API key is unknown, expired or revoked; make another in Settings.")
        restrict(key.user, key.project_id)
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class SessionAuthentication(authentication.SessionAuthentication):
    """The browser's session, with CSRF on unsafe methods."""


class ScopePermission(permissions.BasePermission):
    """Signed in, the key has the scopes of the method and the action, and to change an object the role that its view asks for."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.user, User) or not request.user.is_authenticated:
            return False
        if isinstance(request.auth, ApiKey):
            missing = [scope for scope in _scopes(request, view) if scope not in request.auth.scopes]
            for scope in missing[:1]:
                raise exceptions.PermissionDenied(f"This key lacks the scope “{scope}”; it has {', '.join(request.auth.scopes)}.")
        return True

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        project_of = getattr(view, "project_of", None)
        if request.method not in permissions.SAFE_METHODS and project_of is not None:
            even_archived = getattr(view, "even_archived", False)
            require_role(request.user, project_of(obj), view.write_role, even_archived=even_archived)  # type: ignore[attr-defined]
        return True


def _scopes(request: Request, view: APIView) -> list[str]:
    """What a key needs: the scope of the method, and what the view asks for besides (`more_scopes`, by action)."""
    more = getattr(view, "more_scopes", {}).get(getattr(view, "action", None))
    return ["read" if request.method in permissions.SAFE_METHODS else "write", *([more] if more else [])]


class SessionOnly(ScopePermission):
    """A person in a browser; a key cannot make keys."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, ApiKey):
            raise exceptions.PermissionDenied("API keys are managed in the browser, not with an API key.")
        return super().has_permission(request, view)
