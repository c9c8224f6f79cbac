"""The content security policy; the admin's theme needs a wider one than our pages."""

from __future__ import annotations

from csp.middleware import CSPMiddleware
from django.http import HttpRequest, HttpResponseBase


class ContentSecurityPolicy(CSPMiddleware):
    """Our pages allow no inline and no evaluated script. Under /admin/ the theme's Alpine needs both to be evaluated."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path.startswith("/admin/"):
            response._csp_update = {"script-src": ["'unsafe-eval'", "'unsafe-inline'"]}  # type: ignore[attr-defined]
        return super().process_response(request, response)
