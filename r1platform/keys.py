"""API keys: `r1_<prefix>_<secret>`, 32 random bytes, stored as SHA-256, shown once, scoped, expiring, revocable."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.models import ApiKey, Project
from r1platform.services import audit

SCOPES = ("read", "write", "inference")
MOST: dict[str, int] = {
    "requests_per_minute": 6000, "tokens_per_minute": 10**9, "concurrent_requests": 256, "dollars_per_month": 10**9,
}  # fmt: skip
"""The limits that a key can have, and the highest value of each; requests have that one also without a limit of the key's own."""
_LAST_USED_EVERY = timedelta(minutes=1)
_FORM = re.compile(r"r1_([0-9a-f]{12})_([A-Za-z0-9_-]{20,100})")


class KeyRefused(ValueError):
    """A key that cannot be made as asked; `field` names the part."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


@transaction.atomic
def api_key_create(
    *,
    user: User,
    name: str,
    scopes: Sequence[str],
    project: Project | None = None,
    expires_at: datetime | None = None,
    **limits: int | Decimal | None,
) -> tuple[ApiKey, str]:
    """Makes a key and returns it with its text, which nobody can read again. `limits` are of MOST. Raises KeyRefused."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise KeyRefused(f"Choose scopes out of {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}.", field="scopes")
    if not name.strip():
        raise KeyRefused("Give the key a name, so that you know later what uses it.", field="name")
    _check_limits(limits)
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        user=user,
        project=project,
        name=name.strip(),
        prefix=prefix,
        secret_sha256=_digest(secret),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
        **limits,
    )
    detail = {"name": key.name, "scopes": key.scopes, **_told(limits)}
    audit(user=user, project=project, action="key.create", target=f"key:{key.pk}", detail=detail)
    return key, f"r1_{prefix}_{secret}"


def api_key_find(secret: str) -> ApiKey | None:
    """The live key with this text, its user loaded; None when it is unknown, expired, revoked or its user inactive."""
    parts = _FORM.fullmatch(secret)
    if parts is None:
        return None
    live = ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None, user__is_active=True)
    stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - _LAST_USED_EVERY)
    key = live.filter(prefix=parts[1]).select_related("user", "project").annotate(is_stale=stale).first()
    if key is None or not hmac.compare_digest(key.secret_sha256, _digest(parts[2])):
        return None
    if key.is_stale:
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=Now())
    return key


@transaction.atomic
def api_key_limit(*, key: ApiKey, by: User, **limits: int | Decimal | None) -> None:
    """Changes limits of MOST; they hold within a second. Raises KeyRefused."""
    _check_limits(limits)
    for name, value in limits.items():
        setattr(key, name, value)
    key.save(update_fields=list(limits))
    detail = {"name": key.name, **_told(limits)}
    audit(user=by, project=key.project, action="key.limit", target=f"key:{key.pk}", detail=detail)


@transaction.atomic
def api_key_revoke(*, key: ApiKey, by: User) -> bool:
    """Ends the key for good; False when it was ended already."""
    if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()):
        return False
    audit(user=by, project=key.project, action="key.revoke", target=f"key:{key.pk}", detail={"name": key.name})
    return True


def _check_limits(limits: dict[str, int | Decimal | None]) -> None:
    for name, value in limits.items():
        if value is not None and not 0 < value <= MOST[name]:
            raise KeyRefused(f"{value} is no limit: it lies above 0 and is at most {MOST[name]}; empty means none.", field=name)


def _told(limits: dict[str, int | Decimal | None]) -> dict[str, Any]:
    """Limits for the audit log, which holds JSON."""
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in limits.items()}


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
