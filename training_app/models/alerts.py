"""Rules by which runs, and keys that spend, call people, and the calls."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from r1platform.lib.constraints import one_of
from r1platform.models import ApiKey, Project, Webhook
from training_app.models.runs import PhaseRun


class AlertKind(models.TextChoices):
    """What a rule looks at."""

    NONFINITE = "nonfinite", "A number is not finite"
    ABOVE = "above", "A metric is above a number"
    BELOW = "below", "A metric is below a number"
    SIGN = "sign", "The reward may be gamed"
    STALL = "stall", "Nothing is heard of a run"
    ENDED = "ended", "A run fails, is lost or is held at its gate"
    DONE = "done", "A run is done, well or badly"
    MONEY = "money", "A key comes near its money"


class AlertRule(models.Model):
    """One condition on the runs of a project, or on keys that spend in it, and whom it tells.

    Looked at by `training_app.alerts`; one of `money` by serving, which knows what a key has spent.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="alert_rules")
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=10, choices=AlertKind.choices)
    run = models.ForeignKey(PhaseRun, null=True, blank=True, on_delete=models.CASCADE, related_name="alert_rules")
    """The only run that it is about; empty: every run of the project."""
    phase = models.CharField(max_length=60, blank=True, default="")
    """The only phase whose runs it is about; empty: any."""
    metric = models.CharField(max_length=120, blank=True, default="")
    """Of `above` and `below`; of `nonfinite`, empty is any."""
    threshold = models.FloatField(null=True, blank=True)
    """Of `above` and `below` a value of the metric; of `money` percent of a key's dollars a month."""
    steps = models.PositiveIntegerField(default=1)
    """Measurements in a row for which `above` and `below` have to hold."""
    sign = models.CharField(max_length=40, blank=True, default="")
    """Of `sign`: the detector of `model_core.detectors`; empty is any."""
    seconds = models.FloatField(null=True, blank=True)
    """Of `stall`: how long nothing is heard of a run that trains."""
    mail_to = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="+")
    """Members who get a mail; who has left the project gets none."""
    webhook = models.ForeignKey(Webhook, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    is_enabled = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=1)
    """Raised by every change: what the rule remembered is then forgotten."""
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            one_of("kind", AlertKind, name="alert_rule_kind"),
            models.CheckConstraint(
                condition=~Q(kind__in=["above", "below"]) | (Q(threshold__isnull=False) & ~Q(metric="")),
                name="alert_rule_compares_something",
            ),
            models.CheckConstraint(condition=~Q(kind="stall") | Q(seconds__gt=0), name="alert_rule_waits_some_time"),
            models.CheckConstraint(condition=Q(steps__gte=1), name="alert_rule_steps_positive"),
            models.CheckConstraint(condition=~Q(kind="money") | Q(threshold__gt=0, threshold__lte=100), name="alert_rule_percent"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def memo_key(self) -> str:
        """Under which a watch keeps what this rule remembers."""
        return f"{self.pk}.{self.version}"


class Alert(models.Model):
    """That a rule has found something in a run, or in what a key has spent; open until it is over or somebody has seen to it."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="alerts")
    run = models.ForeignKey(PhaseRun, null=True, blank=True, on_delete=models.CASCADE, related_name="alerts")
    api_key = models.ForeignKey(ApiKey, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    once = models.CharField(max_length=120, blank=True, default="")
    """What a rule tells once only, such as a month and a limit of a key; empty: as often as it begins anew."""
    rule = models.ForeignKey(AlertRule, null=True, on_delete=models.SET_NULL, related_name="alerts")
    name = models.CharField(max_length=80)
    """The rule's, kept when the rule is deleted."""
    message = models.TextField()
    step = models.BigIntegerField(null=True, blank=True)
    raised_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    resolution = models.TextField(blank=True, default="")
    mail_due_at = models.DateTimeField(null=True, blank=True)
    """When the mail is tried next; empty: none is to be sent any more."""
    mail_attempts = models.PositiveSmallIntegerField(default=0)
    mail_error = models.TextField(blank=True, default="")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "rule"], condition=Q(resolved_at=None), name="alert_one_open"),
            models.UniqueConstraint(fields=["rule", "once"], condition=~Q(once=""), name="alert_told_once"),
            models.CheckConstraint(
                condition=Q(run__isnull=False, api_key=None, once="") | (Q(run=None, api_key__isnull=False) & ~Q(once="")),
                name="alert_about_one",
            ),
        ]
        indexes = [
            models.Index(fields=["run", "-id"], name="alert_of_run"),
            models.Index(fields=["project", "-id"], name="alert_of_project"),
            models.Index(fields=["mail_due_at"], condition=Q(mail_due_at__isnull=False), name="alert_mail_due"),
        ]

    def __str__(self) -> str:
        return f"{self.name} · {self.about}"

    @property
    def about(self) -> str:
        """What it is about, in a few words; of a key its row must be loaded."""
        return f"run {self.run_id}" if self.api_key is None else f"key “{self.api_key.name}”"


class AlertWatch(models.Model):
    """How far the rules have looked at one run."""

    run = models.OneToOneField(PhaseRun, primary_key=True, on_delete=models.CASCADE, related_name="alert_watch")
    last_event_id = models.BigIntegerField(default=0)
    memos = models.JSONField(default=dict)
    """`memo_key` of a rule → what it remembers of this run: see `training_app.alert_rules`."""
    finished_at = models.DateTimeField(null=True, blank=True)
    """The run's end up to which everything was looked at."""
