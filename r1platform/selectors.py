"""Readings of projects, members and nodes for pages and API."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Now

from r1platform.access import for_user
from r1platform.lib.leases import NODE_ALIVE
from r1platform.models import ApiKey, AuditEntry, Device, DeviceLease, Membership, Node, Project, Role


def project_list(*, user: User | AnonymousUser) -> QuerySet[Project]:
    """Projects of the user with `my_role`, the user's role in each."""
    mine = Membership.objects.filter(project=OuterRef("pk"), user=user.pk).values("role")
    return for_user(Project.objects.annotate(my_role=Subquery(mine)), user, path="")


def project_members(*, project: Project) -> QuerySet[Membership]:
    return project.memberships.select_related("user").order_by("user__username")


def api_key_list(*, user: User) -> QuerySet[ApiKey]:
    """Keys of the user that still can be used or were revoked, newest first."""
    return ApiKey.objects.filter(user=user).select_related("project")


def audit_list(*, user: User | AnonymousUser, project: Project | None = None) -> QuerySet[AuditEntry]:
    """Who did what in the projects that the user owns: entries name people and what they did, so members do not see them."""
    entries = for_user(AuditEntry.objects.all(), user, role=Role.OWNER).select_related("user", "project")
    return entries if project is None else entries.filter(project=project)


def audit_choices(*, entries: QuerySet[AuditEntry]) -> dict[str, list[str]]:
    """Who did something, and the kinds of things that were done to."""
    plain = entries.order_by()
    users = plain.exclude(user=None).values_list("user__username", flat=True).distinct()
    actions = plain.values_list("action", flat=True).distinct()
    return {"users": sorted(users), "kinds": sorted({action.partition(".")[0] for action in actions})}


def device_list() -> QuerySet[Device]:
    """Devices with `is_held` and `live_leases`."""
    leases = DeviceLease.objects.filter(released_at=None)
    held = Exists(leases.filter(device=OuterRef("pk")))
    return (
        Device.objects.annotate(is_held=held)
        .select_related("node")
        .prefetch_related(Prefetch("leases", queryset=leases, to_attr="live_leases"))
    )


def node_list() -> QuerySet[Node]:
    """Nodes with `is_up` by the database's clock and `devices` with `live_leases`; every user may see them."""
    up = Exists(Node.objects.filter(Q(pk=OuterRef("pk")), heartbeat_at__gt=Now() - NODE_ALIVE))
    return Node.objects.annotate(is_up=up).prefetch_related(Prefetch("devices", queryset=device_list()))


def device_counts() -> dict[str, Any]:
    """How many devices are up, and how many of them are held."""
    devices = Device.objects.filter(node__heartbeat_at__gt=Now() - NODE_ALIVE)
    held = devices.filter(leases__released_at=None, leases__isnull=False).distinct().count()
    return {"total": devices.count(), "held": held}
