"""Webhooks: what happens in a project, posted to an address of its owners' choice, signed, until it has arrived.

Signed as https://www.standardwebhooks.com says, so that its libraries verify what comes: HMAC-SHA256 over
"id.timestamp.body" in `webhook-signature`, beside `webhook-id` (the same at every attempt) and `webhook-timestamp`
(of the attempt). A receiver refuses what is older than five minutes and remembers ids it has seen: a delivery may come
twice. How an address is reached, and which are refused, is in `r1platform.lib.outbound`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from r1platform.access import for_user
from r1platform.lib.outbound import Answer, is_public, post
from r1platform.lib.sending import send_on_commit
from r1platform.models import Project, Role, Webhook, WebhookDelivery
from r1platform.services import audit

EVENTS: dict[str, str] = {
    "ping": "Sent by hand, to see whether it arrives",
    "alert.raised": "A rule of the project has found something in a run",
    "alert.resolved": "What a rule had found is over, or somebody has seen to it",
}
"""Every event that a webhook may be told of."""
WAITS = (10, 60, 300, 1800, 7200, 21_600, 50_400)
"""Seconds from a failed attempt to the next one; after the last the delivery is given up, about a day after the first."""
MAX_WEBHOOKS = 20
DUE_AT_ONCE = 20


def webhook_create(*, project: Project, user: User, name: str, url: str) -> tuple[Webhook, str]:
    """A new webhook and its secret. Raises ValidationError at `name` or `url`."""
    if Webhook.objects.filter(project=project).count() >= MAX_WEBHOOKS:
        raise ValidationError({"name": f"A project has at most {MAX_WEBHOOKS} webhooks; delete one first."})
    made = Webhook.objects.create(
        project=project, created_by=user, name=_name(name), url=checked_url(url), salt=secrets.token_hex(32)
    )
    _audit(made, user, "webhook.create", url=made.url)
    made.refresh_from_db()
    return made, webhook_secret(made)


def webhook_update(
    *, webhook: Webhook, user: User, name: str | None = None, url: str | None = None, is_enabled: bool | None = None
) -> None:
    """Changes what is given. Raises ValidationError at its field."""
    if name is not None:
        webhook.name = _name(name)
    if url is not None:
        webhook.url = checked_url(url)
    if is_enabled is not None:
        webhook.is_enabled, webhook.disabled_reason = is_enabled, ""
    webhook.save(update_fields=["name", "url", "is_enabled", "disabled_reason"])
    _audit(webhook, user, "webhook.update", url=webhook.url, is_enabled=webhook.is_enabled)


def webhook_delete(*, webhook: Webhook, user: User) -> None:
    """Takes it away with what it still had to deliver."""
    _audit(webhook, user, "webhook.delete", url=webhook.url)
    webhook.delete()


def webhook_secret_renew(*, webhook: Webhook, user: User) -> str:
    """A new secret; whatever is delivered from now on is signed with it."""
    webhook.salt = secrets.token_hex(32)
    webhook.save(update_fields=["salt"])
    _audit(webhook, user, "webhook.secret")
    return webhook_secret(webhook)


def webhook_secret(webhook: Webhook) -> str:
    """The secret as receivers configure it: `whsec_` and 32 bytes in base64."""
    message = f"webhook {webhook.pk} {webhook.salt}".encode()
    made = hmac.new(settings.SECRET_KEY.encode(), message, hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(made).decode()}"


def webhook_send(*, webhook: Webhook, event: str, data: dict[str, Any]) -> WebhookDelivery | None:
    """Queues one event for one webhook; None when it is switched off. It is posted after the transaction's commit."""
    assert event in EVENTS, event
    if not webhook.is_enabled:
        return None
    body = json.dumps({"type": event, "timestamp": timezone.now().isoformat(), "data": data}, ensure_ascii=False)
    made = WebhookDelivery.objects.create(webhook=webhook, event=event, body=body)
    send_on_commit("r1platform.tasks.webhook_deliver", made.pk)
    return made


def webhook_list(*, user: User, project: Project) -> QuerySet[Webhook]:
    """Those of a project that the user owns: a webhook carries out what the project's runs tell."""
    return for_user(Webhook.objects.filter(project=project), user, role=Role.OWNER)


def deliveries_due() -> list[int]:
    """Ids of deliveries whose time has come, one a webhook: a slow receiver does not hold the others."""
    due = WebhookDelivery.objects.filter(delivered_at=None, given_up_at=None, next_attempt_at__lte=Now())
    one_each = due.order_by("webhook_id", "next_attempt_at").distinct("webhook_id")
    return list(one_each.values_list("pk", flat=True)[:DUE_AT_ONCE])


def webhook_deliver(delivery_id: int) -> bool:
    """Makes one attempt if its time has come; whether it has arrived now. Of two at once only one posts."""
    delivery = WebhookDelivery.objects.select_related("webhook").filter(pk=delivery_id).first()
    if delivery is None or not _claim(delivery):
        return False
    if not delivery.webhook.is_enabled:
        _given_up(delivery, "The webhook was switched off.")
        return False
    try:
        answer = _post(delivery)
    except OSError as error:  # refused by us, or nobody answered
        return _failed(delivery, str(error), None)
    if 200 <= answer.status < 300:
        arrived = {"delivered_at": Now(), "last_status": answer.status, "last_error": ""}
        WebhookDelivery.objects.filter(pk=delivery.pk).update(**arrived)
        return True
    if answer.status == 410:
        _switch_off(delivery.webhook, "Its address answered 410 Gone.")
    return _failed(delivery, f"It answered {answer.status}: {' '.join(answer.text.split())[:200]}".rstrip(": "), answer.status)


def signed_headers(secret: str, *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows who speaks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id, "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }  # fmt: skip


def checked_url(url: str) -> str:
    """The address, if it can be one. Raises ValidationError at `url`; names are resolved and checked at every attempt."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ValidationError({"url": "This is no address. Write one like https://example.org/hook."}) from None
    is_address = parts.scheme in {"https", "http"} and bool(host) and len(url) <= 500 and url.isascii() and url.isprintable()
    if not is_address or " " in url:
        raise ValidationError({"url": "Write an address of at most 500 characters, like https://example.org/hook."})
    if parts.username is not None or parts.password is not None:
        raise ValidationError({"url": "Leave name and password out of the address: everybody who owns the project sees it."})
    if settings.R1_WEBHOOKS_PRIVATE:
        return url
    if parts.scheme != "https":
        raise ValidationError({"url": "It has to begin with https: what is sent could be read on its way."})
    if _is_inner(host):
        raise ValidationError({"url": f"{host} is not a public address; this platform posts to no other (R1_WEBHOOKS_PRIVATE)."})
    return url


def _is_inner(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    return not is_public(host)


def _post(delivery: WebhookDelivery) -> Answer:
    body = delivery.body.encode()
    headers = signed_headers(
        webhook_secret(delivery.webhook), message_id=f"r1_delivery_{delivery.pk}", timestamp=int(timezone.now().timestamp()),
        body=body,
    ) | {"content-type": "application/json", "user-agent": "r1-platform"}  # fmt: skip
    return post(delivery.webhook.url, body=body, headers=headers, allow_private=settings.R1_WEBHOOKS_PRIVATE)


def _claim(delivery: WebhookDelivery) -> bool:
    """Counts the attempt before it is made and sets the time of the next: who dies in between is followed by another."""
    wait = WAITS[min(delivery.num_attempts, len(WAITS) - 1)]
    free = WebhookDelivery.objects.filter(
        pk=delivery.pk, delivered_at=None, given_up_at=None, next_attempt_at__lte=Now(), num_attempts=delivery.num_attempts
    )  # fmt: skip
    claimed = free.update(num_attempts=F("num_attempts") + 1, next_attempt_at=Now() + timedelta(seconds=wait))
    delivery.num_attempts += claimed
    return bool(claimed)


def _failed(delivery: WebhookDelivery, error: str, status: int | None) -> bool:
    WebhookDelivery.objects.filter(pk=delivery.pk).update(last_error=error, last_status=status)
    if delivery.num_attempts > len(WAITS):
        _given_up(delivery, error)
    return False


def _given_up(delivery: WebhookDelivery, error: str) -> None:
    WebhookDelivery.objects.filter(pk=delivery.pk, delivered_at=None).update(given_up_at=Now(), last_error=error)


@transaction.atomic
def _switch_off(webhook: Webhook, reason: str) -> None:
    Webhook.objects.filter(pk=webhook.pk).update(is_enabled=False, disabled_reason=reason)
    audit(user=None, project=webhook.project, action="webhook.off", target=f"webhook:{webhook.pk}", detail={"reason": reason})


def _name(name: str) -> str:
    name = name.strip()
    if not 0 < len(name) <= 80:
        raise ValidationError({"name": f"A webhook's name has 1 to 80 characters; this one has {len(name)}."})
    return name


def _audit(webhook: Webhook, user: User, action: str, **detail: Any) -> None:
    audit(user=user, project=webhook.project, action=action, target=f"webhook:{webhook.pk}", detail=detail)
