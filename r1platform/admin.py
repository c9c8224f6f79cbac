"""The admin of people, projects, keys, nodes and devices: shown here, changed where the audit log sees it.

Users and groups are Django's own and can be edited. Secrets are never shown: of a key there is only its prefix.
"""

from __future__ import annotations

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from r1platform import services
from r1platform.access import signed_in
from r1platform.keys import api_key_revoke
from r1platform.lib.admin import ReadOnly, ReadOnlyInline
from r1platform.models import (
    ApiKey,
    AuditEntry,
    Device,
    DeviceLease,
    Invitation,
    Membership,
    Node,
    Project,
    Webhook,
    WebhookDelivery,
)

admin.site.unregister((User, Group, EmailAddress, SocialApp, SocialToken, SocialAccount))
"""Of django-allauth's tables only who is tied to whom is used."""


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


class MembershipInline(ReadOnlyInline):
    model = Membership
    fields = ["user", "role", "created_at"]


@admin.register(Project)
class ProjectAdmin(ReadOnly):
    list_display = ["name", "slug", "created_by", "created_at"]
    search_fields = ["name", "slug"]
    list_select_related = ["created_by"]
    inlines = [MembershipInline]


@admin.register(SocialAccount)
class SocialAccountAdmin(ReadOnly):
    """Whom the provider of single sign-on names for which user."""

    list_display = ["user", "provider", "uid", "date_joined", "last_login"]
    search_fields = ["user__username", "uid"]
    list_select_related = ["user"]
    fields = ["user", "provider", "uid", "date_joined", "last_login"]


@admin.register(Invitation)
class InvitationAdmin(ReadOnly):
    list_display = ["project", "role", "note", "created_by", "created_at", "expires_at", "used_at", "used_by", "revoked_at"]
    list_filter = ["project", "role"]
    list_select_related = ["project", "created_by", "used_by"]
    exclude = ["token_sha256"]


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    list_display = ["name", "prefix", "user", "project", "created_at", "expires_at", "revoked_at", "last_used_at"]
    list_filter = ["project"]
    search_fields = ["name", "prefix", "user__username"]
    list_select_related = ["user", "project"]
    exclude = ["secret_sha256"]
    actions = ["revoke"]

    @admin.action(description="Revoke: whatever uses the key is refused at once")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        num = sum(api_key_revoke(key=key, by=signed_in(request)) for key in queryset.select_related("project"))
        self.message_user(request, f"{num} of {len(queryset)} keys are revoked now; the others were already.")


class DeviceInline(ReadOnlyInline):
    model = Device
    fields = ["kind", "index", "name", "memory_bytes"]


@admin.register(Node)
class NodeAdmin(ReadOnly):
    list_display = ["name", "address", "draining", "heartbeat_at"]
    list_filter = ["draining"]
    search_fields = ["name", "address"]
    inlines = [DeviceInline]
    actions = ["drain", "take_work_again"]

    @admin.action(description="Drain: no new work; what runs goes on to its end")
    def drain(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._set(request, queryset, draining=True)

    @admin.action(description="Take work again")
    def take_work_again(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._set(request, queryset, draining=False)

    def _set(self, request: HttpRequest, queryset: QuerySet[Node], *, draining: bool) -> None:
        for node in queryset:
            services.node_drain(node=node, draining=draining, by=signed_in(request))
        names = ", ".join(node.name for node in queryset)
        self.message_user(request, f"{names}: {'no new work' if draining else 'takes work again'}.", messages.SUCCESS)


@admin.register(DeviceLease)
class DeviceLeaseAdmin(ReadOnly):
    list_display = ["device", "holder", "fence", "claimed_at", "released_at"]
    list_filter = [("released_at", admin.EmptyFieldListFilter), "device__node"]
    search_fields = ["holder"]
    list_select_related = ["device__node"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ["created_at", "user", "action", "target", "project"]
    list_filter = ["action", "project"]
    search_fields = ["target", "user__username"]
    list_select_related = ["user", "project"]
    date_hierarchy = "created_at"


@admin.register(Webhook)
class WebhookAdmin(ReadOnly):
    list_display = ["name", "project", "url", "is_enabled", "disabled_reason", "created_by", "created_at"]
    list_filter = ["is_enabled", "project"]
    search_fields = ["name", "url"]
    exclude = ["salt"]


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly):
    list_display = ["webhook", "event", "num_attempts", "last_status", "created_at", "delivered_at", "given_up_at"]
    list_filter = ["event", ("delivered_at", admin.EmptyFieldListFilter), ("given_up_at", admin.EmptyFieldListFilter)]
    list_select_related = ["webhook"]
    exclude = ["body"]
