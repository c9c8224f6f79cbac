"""Is it alive, can it work, what does it count. `/metrics` answers loopback and keys with the scope `read` only."""

from __future__ import annotations

import ipaddress

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from r1platform.keys import api_key_find
from r1platform.measures import PlatformCollector
from r1platform.problems import problem

PLATFORM = CollectorRegistry(auto_describe=False)
PLATFORM.register(PlatformCollector())


@login_not_required
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """The process answers; asks nothing else."""
    return JsonResponse({"status": "ok"})


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers too."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return problem(503, "The database does not answer.")
    return JsonResponse({"status": "ok"})


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text of this web process, and of the whole platform as the database knows it."""
    if not _may_measure(request):
        return problem(401, "Ask from this machine or with a key that has the scope “read”.")
    return HttpResponse(generate_latest(REGISTRY) + generate_latest(PLATFORM), content_type=CONTENT_TYPE_LATEST)


def _may_measure(request: HttpRequest) -> bool:
    key = api_key_find(request.headers.get("Authorization", "").removeprefix("Bearer ").strip())
    if key is not None and "read" in key.scopes:
        return True
    forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    try:
        return not forwarded and ipaddress.ip_address(request.META.get("REMOTE_ADDR") or "").is_loopback
    except ValueError:
        return False
