"""What an alert sends: a mail to members who asked for it, and a message to the rule's webhook. Both are tried again."""

from __future__ import annotations

from datetime import timedelta
from smtplib import SMTPException
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMessage
from django.db.models import F
from django.db.models.functions import Now
from django.urls import reverse

from r1platform.lib.sending import send_on_commit
from r1platform.models import Project
from r1platform.webhooks import webhook_send
from training_app.models import Alert, AlertRule

MAIL_WAITS = (60, 300, 1800, 7200)
"""Seconds from a mail that the server did not take to the next try; after the last it is given up."""


def tell_raised(alert: Alert, rule: AlertRule) -> None:
    """Queues what the rule asks for."""
    if settings.R1_EMAIL_URL and recipients(rule):
        Alert.objects.filter(pk=alert.pk).update(mail_due_at=Now())
        send_on_commit("training_app.tasks.alert_mail", alert.pk)
    if rule.webhook is not None:
        webhook_send(webhook=rule.webhook, event="alert.raised", data=alert_data(alert))


def tell_resolved(alert: Alert) -> None:
    """Tells the webhook; a mail calls, and does not call off."""
    if alert.rule is not None and alert.rule.webhook is not None:
        webhook_send(webhook=alert.rule.webhook, event="alert.resolved", data=alert_data(alert))


def alert_data(alert: Alert) -> dict[str, Any]:
    """An alert as webhooks are told of it."""
    run, key, project = alert.run, alert.api_key, alert.project
    about_run = {"id": run.pk, "name": run.name, "phase": run.phase, "state": run.state, "url": alert_url(alert)} if run else None
    about_key = {"id": key.pk, "name": key.name, "prefix": f"r1_{key.prefix}", "url": alert_url(alert)} if key else None
    return {
        "id": alert.pk, "rule": alert.rule_id, "name": alert.name, "message": alert.message, "step": alert.step,
        "raised_at": alert.raised_at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None, "resolution": alert.resolution,
        "run": about_run, "api_key": about_key, "project": {"id": project.pk, "slug": project.slug, "name": project.name},
    }  # fmt: skip


def members_with_mail(project: Project) -> Any:
    """Members who can get a mail."""
    return User.objects.filter(memberships__project=project, is_active=True).exclude(email="").order_by("username")


def recipients(rule: AlertRule) -> list[str]:
    """Addresses of those whom the rule mails and who are members still."""
    return list(members_with_mail(rule.project).filter(pk__in=rule.mail_to.values("pk")).values_list("email", flat=True))


def mails_due() -> list[int]:
    """Ids of alerts whose mail is to be tried now."""
    return list(Alert.objects.filter(mail_due_at__lte=Now()).order_by("mail_due_at").values_list("pk", flat=True)[:20])


def alert_mail(alert_id: int) -> bool:
    """Tries the mail of an alert if its time has come; whether the server took it. Of two at once only one sends."""
    alert = Alert.objects.select_related("rule__project", "run", "api_key", "project").filter(pk=alert_id).first()
    if alert is None or not _claim(alert):
        return False
    addresses = recipients(alert.rule) if alert.rule is not None else []
    try:
        sent = bool(addresses) and bool(_mail(alert, addresses).send())
    except (SMTPException, OSError) as error:
        given_up = {"mail_due_at": None} if alert.mail_attempts >= len(MAIL_WAITS) else {}
        Alert.objects.filter(pk=alert.pk).update(mail_error=f"The mail server: {error}"[:500], **given_up)
        return False
    Alert.objects.filter(pk=alert.pk).update(mail_due_at=None, mail_error="")
    return sent


def alert_url(alert: Alert) -> str:
    """Where the run, or what keys have spent, is read in a browser."""
    if alert.run_id is None:
        return f"{settings.R1_URL}{reverse('usage')}?project={alert.project.slug}"
    return f"{settings.R1_URL}{reverse('run-detail', args=[alert.run_id])}"


def _claim(alert: Alert) -> bool:
    """Counts the try and sets the time of the next before it is made."""
    wait = MAIL_WAITS[min(alert.mail_attempts, len(MAIL_WAITS) - 1)]
    free = Alert.objects.filter(pk=alert.pk, mail_due_at__lte=Now(), mail_attempts=alert.mail_attempts)
    claimed = free.update(mail_attempts=F("mail_attempts") + 1, mail_due_at=Now() + timedelta(seconds=wait))
    alert.mail_attempts += claimed
    return bool(claimed)


def _mail(alert: Alert, addresses: list[str]) -> EmailMessage:
    run, about = alert.run, alert.about
    told = []
    if run is not None:
        about = f"run {run.pk} · {run.name}"
        told = [f"Run {run.pk} · {run.name} ({run.phase.replace('_', ' ')}) is {run.get_state_display().lower()}."]
    subject = " ".join(f"{alert.name}: {about}".split())
    lines = [alert.message, "", *told, alert_url(alert), "",
             f"You get this because a rule of the project “{alert.project.name}” mails you:",
             f"{settings.R1_URL}{reverse('alert-rules')}"]  # fmt: skip
    return EmailMessage(subject, "\n".join(lines), to=[], bcc=addresses)
