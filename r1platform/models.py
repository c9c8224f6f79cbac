"""People, projects, keys, nodes and devices: what both apps stand on.

Runs and datasets are in `training_app.models`, deployments in `serving_app.models`. Who may hold a device is
decided by `r1platform.lib.leases`; states of a node are derived from its heartbeat, never stored.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of


class Transition(models.Model):
    """One move of something that has a state: who, when and why. Written by `r1platform.lib.transitions` only."""

    before = models.CharField(max_length=12)
    after = models.CharField(max_length=12)
    reason = models.TextField(blank=True, default="")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        abstract = True
        ordering = ["id"]


class Project(models.Model):
    """The unit of ownership: every dataset, pipeline, run and deployment belongs to one."""

    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=80, unique=True)
    description = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    archived_at = models.DateTimeField(null=True, blank=True)
    """Since when it is only read; what ran then went on to its end."""

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What a member may do; each role includes the one before it."""

    VIEWER = "viewer", "Viewer"
    EDITOR = "editor", "Editor"
    OWNER = "owner", "Owner"


class Membership(models.Model):
    """One user's role in one project."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            one_of("role", Role, name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} in {self.project} as {self.role}"


class SignInLink(models.Model):
    """A link that signs one user in, once; only its SHA-256 is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    token_sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)


class Invitation(models.Model):
    """A link that makes whoever opens it a member, once; only its SHA-256 is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.EDITOR)
    note = models.CharField(max_length=120, blank=True, default="")
    """For whom it is, in the words of who made it."""
    token_sha256 = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    used_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            one_of("role", Role, name="invitation_role"),
            models.CheckConstraint(condition=Q(used_at=None) | Q(revoked_at=None), name="invitation_used_or_revoked"),
        ]

    def __str__(self) -> str:
        return f"invitation to {self.project} as {self.role}"


class ApiKey(models.Model):
    """A bearer key `r1_<prefix>_<secret>`: 32 random bytes, stored as SHA-256, shown once."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16, unique=True)
    secret_sha256 = models.CharField(max_length=64)
    scopes = models.JSONField(default=list)
    """Subset of r1platform.keys.SCOPES: "read", "write", "inference"."""
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrent_requests = models.PositiveIntegerField(null=True, blank=True)
    dollars_per_month = models.DecimalField(max_digits=12, decimal_places=2, null=True, blank=True)
    """How much it may ask of models; None: no limit of its own. A month is one of the calendar, in UTC."""
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        constraints = [
            models.CheckConstraint(condition=Q(**{field: None}) | Q(**{f"{field}__gt": 0}), name=f"api_key_{field}")
            for field in ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "dollars_per_month")
        ]

    def __str__(self) -> str:
        return f"{self.name} (r1_{self.prefix}_…)"


class Node(models.Model):
    """A machine whose Celery worker consumes the queue that has this node's name."""

    name = models.CharField(max_length=120, unique=True)
    address = models.CharField(max_length=255, default="127.0.0.1")
    boot_id = models.CharField(max_length=64, blank=True, default="")
    hardware = models.JSONField(default=dict)
    """CPU, memory, disk, GPUs as found by `r1platform.lib.hardware`; bytes and counts."""
    draining = models.BooleanField(default=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class DeviceKind(models.TextChoices):
    """What a lease can hold; a CPU device is one share of a machine without GPUs."""

    CPU = "cpu", "CPU"
    CUDA = "cuda", "CUDA GPU"


class Device(models.Model):
    """One leasable device of a node."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="devices")
    kind = models.CharField(max_length=8, choices=DeviceKind.choices)
    index = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=120)
    memory_bytes = models.BigIntegerField(default=0)
    uuid = models.CharField(max_length=80, blank=True, default="")

    class Meta:
        ordering = ["node__name", "kind", "index"]
        constraints = [
            models.UniqueConstraint(fields=["node", "kind", "index"], name="device_once"),
            one_of("kind", DeviceKind, name="device_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.node}/{self.kind}:{self.index}"


class DeviceLease(models.Model):
    """Who holds a device. At most one live lease per device; the fence is raised by every claim.

    `holder` names the owner across apps: "attempt:12" or "replica:3".
    """

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="leases")
    holder = models.CharField(max_length=60)
    fence = models.PositiveIntegerField(default=1)
    claimed_at = models.DateTimeField(db_default=Now())
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["device"], condition=Q(released_at=None), name="device_one_live_lease"),
            models.CheckConstraint(
                condition=Q(released_at=None) | Q(released_at__gte=F("claimed_at")), name="lease_ends_after_start"
            ),
        ]
        indexes = [models.Index(fields=["holder"], name="lease_holder")]


class AuditEntry(models.Model):
    """Who did what to which object; append-only."""

    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.SET_NULL, related_name="audit")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    action = models.CharField(max_length=80)
    target = models.CharField(max_length=120)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"


class Webhook(models.Model):
    """An address outside that is told of events of one project, signed; `r1platform.webhooks` is its only writer."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    name = models.CharField(max_length=80)
    url = models.CharField(max_length=500)
    salt = models.CharField(max_length=64)
    """Random; the secret is made of it and of the platform's own key, so that a copy of the database signs nothing."""
    is_enabled = models.BooleanField(default=True)
    disabled_reason = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class WebhookDelivery(models.Model):
    """One message for one webhook, until it has arrived or is given up. Its body is the same at every attempt."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=60)
    body = models.TextField()
    num_attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    delivered_at = models.DateTimeField(null=True, blank=True)
    given_up_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "webhook deliveries"
        indexes = [
            models.Index(
                fields=["next_attempt_at"], condition=Q(delivered_at=None, given_up_at=None), name="delivery_due"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}"


class RequestKey(models.Model):
    """An `Idempotency-Key` of one caller with the answer that its request was given; kept for a day."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    caller = models.CharField(max_length=30)
    """"session", or "key:7" of an API key: two programs of one user may choose the same text."""
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    """SHA-256 of method, address and body."""
    status = models.PositiveSmallIntegerField(default=0)
    body = models.TextField(blank=True, default="")
    """The answer's JSON; empty for one without a body or with a secret that is shown once."""
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "caller", "key"], name="request_key_once")]

    def __str__(self) -> str:
        return f"{self.caller} {self.key}"
