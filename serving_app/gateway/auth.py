"""Who asks: the bearer key, its scopes and the projects it reaches. Nothing here knows sessions or cookies."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from django.http import HttpRequest

from r1platform.keys import api_key_find
from r1platform.models import Membership
from serving_app.background import in_database
from serving_app.gateway.errors import GatewayError
from serving_app.gateway.limits import Terms, terms_of
from serving_app.gateway.spending import account_open

FRESH_SECONDS = 1.0
"""For so long a key that was looked up is not looked up again; a revoked key ends after it."""
_MAX_KEPT = 4096
SCOPE = "inference"


@dataclass(frozen=True)
class Caller:
    """A live key: whom requests are booked on and which projects' models it sees."""

    key_id: int
    user_id: int
    scopes: frozenset[str]
    projects: frozenset[int]
    expires_at: float | None
    terms: Terms


_kept: dict[bytes, tuple[float, Caller]] = {}


async def caller_of(request: HttpRequest) -> Caller:
    """The caller. Raises GatewayError 401 without a live key, 403 when it may not use models."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        message = "No API key was sent. Send “Authorization: Bearer r1_…”; keys are made under Settings → API keys."
        raise GatewayError(401, message, code="missing_api_key")
    caller = await _known(secret.strip())
    if caller is None or (caller.expires_at is not None and caller.expires_at <= time.time()):
        message = "This API key is unknown, expired or revoked. Make a new one under Settings → API keys."
        raise GatewayError(401, message, code="invalid_api_key")
    if SCOPE not in caller.scopes:
        raise GatewayError(403, f"This API key has no scope “{SCOPE}”. Make one that has it.", code="missing_scope")
    return caller


def forget_callers() -> None:
    """Drops what is kept, so that the next request asks the database."""
    _kept.clear()


async def _known(secret: str) -> Caller | None:
    digest = hashlib.sha256(secret.encode(errors="replace")).digest()
    found = _kept.get(digest)
    if found is not None and time.monotonic() - found[0] < FRESH_SECONDS:
        return found[1]
    caller = await in_database(_look_up, secret)
    if caller is None:
        _kept.pop(digest, None)
        return None
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    _kept[digest] = (time.monotonic(), caller)
    return caller


def _look_up(secret: str) -> Caller | None:
    if "\x00" in secret:
        return None
    key = api_key_find(secret)
    if key is None:
        return None
    account_open(key.pk)
    memberships = Membership.objects.filter(user=key.user_id)
    if key.project_id is not None:
        memberships = memberships.filter(project=key.project_id)
    return Caller(
        key_id=key.pk,
        user_id=key.user_id,
        scopes=frozenset(key.scopes),
        projects=frozenset(memberships.values_list("project", flat=True)),
        expires_at=key.expires_at.timestamp() if key.expires_at else None,
        terms=terms_of(key),
    )
