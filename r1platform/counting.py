"""Counts requests and their time to the first byte, by the name of the view that answered."""

from __future__ import annotations

import time

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from prometheus_client import Counter, Histogram

REQUESTS = Counter("r1_http_requests", "Requests that this web process answered.", ["view", "method", "status"])
REQUEST_SECONDS = Histogram(
    "r1_http_request_seconds", "Time to the first byte.", ["view"], buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class CountRequests(MiddlewareMixin):
    """Stands first, so that what the others take is counted too."""

    def process_request(self, request: HttpRequest) -> None:
        request.began = time.perf_counter()  # type: ignore[attr-defined]

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        match = request.resolver_match
        view = "none" if match is None else match.view_name or "unnamed"
        method = request.method if request.method in METHODS else "other"
        REQUESTS.labels(view, method, f"{response.status_code // 100}xx").inc()
        began: float | None = getattr(request, "began", None)
        if began is not None:
            REQUEST_SECONDS.labels(view).observe(time.perf_counter() - began)
        return response
