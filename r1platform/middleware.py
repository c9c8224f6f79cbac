"""What stands before every view: zero bytes are refused, the admin is for staff, answers carry the content security policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from csp.middleware import CSPMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from r1platform.problems import answer, for_program


class RefuseZeroBytes(MiddlewareMixin):
    """PostgreSQL cannot hold a zero byte in a text; in an address or a form it is never meant.

    Forms are read after the check of the CSRF token, which stands before this in the settings. Programs send JSON,
    whose fields refuse it one by one.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return answer(request, 400, "The address holds a zero byte (%00); take it out.")
        return None

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        if request.method != "POST" or for_program(request):
            return None
        for name, values in request.POST.lists():
            if "\x00" in name or any("\x00" in value for value in values):
                shown = name.replace("\x00", "␀")[:80]
                return answer(request, 400, f"The field “{shown}” holds a zero byte, which no text may hold; take it out.")
        return None


class AdminIsForStaff(MiddlewareMixin):
    """Tells whoever is signed in without being staff; Django's admin would show a sign-in that says nothing."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if not request.path.startswith("/admin/") or request.user.is_anonymous or request.user.is_staff:
            return None
        name = request.user.get_username()
        return answer(
            request,
            403,
            f"Only staff may enter the admin, and {name} is not. Ask an administrator, or sign out and sign in as one.",
        )


class ContentSecurityPolicy(CSPMiddleware):
    """Our pages allow no inline and no evaluated script. Under /admin/ the theme's Alpine needs both to be evaluated."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path.startswith("/admin/"):
            response._csp_update = {"script-src": ["'unsafe-eval'", "'unsafe-inline'"]}  # type: ignore[attr-defined]
        return super().process_response(request, response)
