"""Verbs on people and projects; each leaves an audit entry."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.urls import reverse
from django.utils.text import slugify

from r1platform.models import AuditEntry, Membership, Node, Project, Role, SignInLink

LINK_LIFETIME = timedelta(hours=24)


def audit(
    *, user: User | None, project: Project | None, action: str, target: str, detail: dict[str, Any] | None = None
) -> AuditEntry:
    """Writes down who did what to which object."""
    return AuditEntry.objects.create(user=user, project=project, action=action, target=target, detail=detail or {})


@transaction.atomic
def project_create(*, user: User, name: str, description: str = "") -> Project:
    """A project with `user` as its owner. Raises ValidationError when the name is empty or too long."""
    name = _project_name(name)
    project = Project.objects.create(name=name, slug=_free_slug(name), description=description, created_by=user)
    Membership.objects.create(project=project, user=user, role=Role.OWNER)
    audit(user=user, project=project, action="project.create", target=f"project:{project.pk}", detail={"name": name})
    project.refresh_from_db()
    return project


@transaction.atomic
def project_update(*, project: Project, by: User, name: str | None = None, description: str | None = None) -> None:
    """Renames or describes it; the short name stays, for addresses hold it. Raises ValidationError at the field."""
    changed = {}
    if name is not None:
        changed["name"] = _project_name(name)
    if description is not None:
        changed["description"] = description
    changed = {field: value for field, value in changed.items() if value != getattr(project, field)}
    if not changed:
        return
    Project.objects.filter(pk=project.pk).update(**changed)
    for field, value in changed.items():
        setattr(project, field, value)
    audit(user=by, project=project, action="project.update", target=f"project:{project.pk}", detail=changed)


@transaction.atomic
def project_archive(*, project: Project, by: User) -> bool:
    """Makes it read-only and takes it off the lists that people choose from; what runs goes on. False when it was so already."""
    if not Project.objects.filter(pk=project.pk, archived_at=None).update(archived_at=Now()):
        return False
    audit(user=by, project=project, action="project.archive", target=f"project:{project.pk}")
    return True


@transaction.atomic
def project_restore(*, project: Project, by: User) -> bool:
    """Takes an archived project back into use; False when it was not archived."""
    if not Project.objects.filter(pk=project.pk, archived_at__isnull=False).update(archived_at=None):
        return False
    audit(user=by, project=project, action="project.restore", target=f"project:{project.pk}")
    return True


@transaction.atomic
def member_set(*, project: Project, user: User, role: Role | None, by: User) -> Membership | None:
    """Gives `user` this role, or takes the membership away with None. The last owner stays; raises ValidationError."""
    owners = Membership.objects.select_for_update().filter(project=project, role=Role.OWNER)
    if role != Role.OWNER and [owner.user_id for owner in owners] == [user.pk]:
        raise ValidationError({"role": f"{user} is the only owner of “{project.name}”; make another owner first."})
    member = None
    if role is None:
        Membership.objects.filter(project=project, user=user).delete()
    else:
        member, _ = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    audit(user=by, project=project, action="member.set", target=f"user:{user.pk}", detail={"role": role})
    return member


@transaction.atomic
def node_drain(*, node: Node, draining: bool, by: User) -> None:
    """Takes a node out of scheduling, or back in; what runs there goes on to its end."""
    if not Node.objects.filter(pk=node.pk).exclude(draining=draining).update(draining=draining):
        return
    node.draining = draining
    audit(user=by, project=None, action="node.drain" if draining else "node.undrain", target=f"node:{node.pk}")


def sign_in_link_create(*, user: User) -> str:
    """Path of a link that signs `user` in once within a day; only its hash is kept."""
    token = secrets.token_urlsafe(32)
    SignInLink.objects.create(user=user, token_sha256=token_digest(token), expires_at=Now() + LINK_LIFETIME)
    return reverse("sign-in-link", args=[token])


@transaction.atomic
def sign_in_link_use(*, token: str) -> User | None:
    """The user whom the link signs in, once; None when it is unknown, used, expired or its user inactive."""
    if not _open_links(token).update(used_at=Now()):
        return None
    user = User.objects.get(pk=SignInLink.objects.values_list("user", flat=True).get(token_sha256=token_digest(token)))
    if not user.is_active:
        return None
    audit(user=user, project=None, action="sign_in.link", target=f"user:{user.pk}")
    return user


def sign_in_link_is_open(*, token: str) -> bool:
    """Whether the link would sign in; asking does not use it up."""
    return _open_links(token).filter(user__is_active=True).exists()


def admin_ensure(*, name: str = "admin") -> User:
    """The first administrator, without a password: who holds the command line signs in by link."""
    user, made = User.objects.get_or_create(username=name, defaults={"is_staff": True, "is_superuser": True})
    if made:
        user.set_unusable_password()
        user.save(update_fields=["password"])
        audit(user=user, project=None, action="admin.create", target=f"user:{user.pk}")
    return user


def _open_links(token: str) -> QuerySet[SignInLink]:
    return SignInLink.objects.filter(token_sha256=token_digest(token), used_at=None, expires_at__gt=Now())


def _project_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 80:
        raise ValidationError({"name": f"A project's name has 1 to 80 characters; this one has {len(name)}."})
    return name


def _free_slug(name: str) -> str:
    base = slugify(name)[:70] or "project"
    taken = set(Project.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    if base not in taken:
        return base
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{base}-{number}") not in taken)


def token_digest(token: str) -> str:
    """What is kept of a link's token."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
