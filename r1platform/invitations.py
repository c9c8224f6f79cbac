"""Invitations by link: who opens it becomes a member, once; only a hash of the token is kept.

A link lives no longer than the power of who made it: it is dead when its maker is no owner any more.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.urls import reverse

from r1platform.access import role_in, roles_from
from r1platform.models import Invitation, Membership, Project, Role
from r1platform.services import audit, token_digest

DAYS = (1, 7, 30)
"""How long a link may live."""
SPENT = "This invitation has been used, was ended, has expired or never was one; ask for another."


@transaction.atomic
def invitation_create(*, project: Project, by: User, role: Role, days: int = 7, note: str = "") -> tuple[Invitation, str]:
    """An invitation and the path of its link, which nobody can read again. Raises ValidationError."""
    if days not in DAYS:
        raise ValidationError({"days": f"A link lives {', '.join(map(str, DAYS))} days; not {days}."})
    token = secrets.token_urlsafe(32)
    made = Invitation.objects.create(
        project=project, role=role, note=note.strip()[:120], created_by=by, token_sha256=token_digest(token),
        expires_at=Now() + timedelta(days=days),
    )  # fmt: skip
    made.refresh_from_db()
    detail = {"role": role, "days": days, "note": made.note}
    audit(user=by, project=project, action="invitation.create", target=f"invitation:{made.pk}", detail=detail)
    return made, reverse("invitation", args=[token])


@transaction.atomic
def invitation_revoke(*, invitation: Invitation, by: User) -> bool:
    """Ends a link that nobody has used; False when it was used or ended already."""
    if not Invitation.objects.filter(pk=invitation.pk, used_at=None, revoked_at=None).update(revoked_at=Now()):
        return False
    audit(user=by, project=invitation.project, action="invitation.revoke", target=f"invitation:{invitation.pk}")
    return True


def invitation_find(*, token: str) -> Invitation | None:
    """The open invitation of a link; None when it is used, ended, expired, or its maker is no owner any more."""
    return _open().filter(token_sha256=token_digest(token)).select_related("project", "created_by").first()


@transaction.atomic
def invitation_use(*, token: str, user: User) -> Project | None:
    """Makes `user` a member and uses the link up; a role that is higher already stays. None when it is not open."""
    found = invitation_find(token=token)
    if found is None or not Invitation.objects.filter(pk=found.pk, used_at=None, revoked_at=None).update(
        used_at=Now(), used_by=user
    ):
        return None
    held = role_in(user, found.project)
    if held is None or held not in roles_from(Role(found.role)):
        Membership.objects.update_or_create(project=found.project, user=user, defaults={"role": found.role})
    detail = {"role": found.role, "invited_by": found.created_by.get_username()}
    audit(user=user, project=found.project, action="invitation.use", target=f"invitation:{found.pk}", detail=detail)
    return found.project


@transaction.atomic
def invitation_sign_up(*, token: str, username: str, password: str) -> User | None:
    """A new user who uses the link at once; None when it is not open. Raises ValidationError at username or password."""
    if invitation_find(token=token) is None:
        return None
    user = User(username=username)
    user.clean_fields(exclude=["password", "last_login"])
    if User.objects.filter(username__iexact=user.username).exists():
        raise ValidationError({"username": "Somebody has this name. If it is you, sign in first and open the link again."})
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({"password": list(error.messages)}) from None
    user.set_password(password)
    user.save()
    audit(user=user, project=None, action="user.sign_up", target=f"user:{user.pk}")
    if invitation_use(token=token, user=user) is None:
        transaction.set_rollback(True)
        return None
    return user


def invitation_list(*, project: Project) -> QuerySet[Invitation]:
    """Links that can still be used, newest first."""
    return _open().filter(project=project).select_related("created_by")


def _open() -> QuerySet[Invitation]:
    return Invitation.objects.filter(
        used_at=None, revoked_at=None, expires_at__gt=Now(), created_by__is_active=True,
        created_by__memberships__project=F("project"), created_by__memberships__role=Role.OWNER,
    )  # fmt: skip
