"""What stands before every view: zero bytes are refused, and answers carry the content security policy."""

from __future__ import annotations

from csp.middleware import CSPMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from r1platform.problems import problem


class RefuseZeroBytes(MiddlewareMixin):
    """PostgreSQL cannot hold a zero byte in a text; in an address it is never meant."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if "\x00" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return problem(400, "The address holds a zero byte.")
        return None


class ContentSecurityPolicy(CSPMiddleware):
    """Our pages allow no inline and no evaluated script. Under /admin/ the theme's Alpine needs both to be evaluated."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path.startswith("/admin/"):
            response._csp_update = {"script-src": ["'unsafe-eval'", "'unsafe-inline'"]}  # type: ignore[attr-defined]
        return super().process_response(request, response)
