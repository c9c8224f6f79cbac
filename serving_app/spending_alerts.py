"""Calls people when a key comes near the dollars that it may spend in a month. The beat asks; no request waits for it.

What a key has spent is what the table of usage says, as in its limits. A rule tells of a key once for each month, limit and
threshold, however many look at the same time; what it told is over with the month, or when the limit was raised or the key ended.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from django.db.models import Q, Sum

from r1platform.models import ApiKey
from serving_app.gateway.limits import NOTHING, this_month
from serving_app.models import UsageRecord
from training_app.alerts import alert_raise_once, alert_resolve
from training_app.models import Alert, AlertKind, AlertRule


def spending_look() -> int:
    """Looks at every key with a limit that a rule is about; returns how many alerts were raised."""
    rules = list(AlertRule.objects.filter(kind=AlertKind.MONEY, is_enabled=True).select_related("project", "webhook"))
    keys = list(_keys(rules))
    spent = spent_this_month([key.pk for key in keys])
    raised = 0
    for rule in rules:
        for key in keys:
            if _is_about(rule, key):
                raised += _tell(rule, key, spent.get(key.pk, NOTHING))
    _resolve(spent)
    return raised


def spent_this_month(keys: list[int]) -> dict[int, Decimal]:
    """Dollars by key, of those that have spent any."""
    first = datetime(*this_month(), 1, tzinfo=UTC)
    rows = UsageRecord.objects.filter(api_key__in=keys, created_at__gte=first).order_by()
    return dict(rows.values("api_key").annotate(dollars=Sum("cost_dollars")).values_list("api_key", "dollars"))


def _keys(rules: list[AlertRule]) -> list[ApiKey]:
    """Keys with a limit of the rules' projects, and those without a project of who made a rule."""
    about = Q(project__in=[rule.project_id for rule in rules]) | Q(project=None, user__in=[rule.created_by_id for rule in rules])
    return list(ApiKey.objects.filter(about, revoked_at=None).exclude(dollars_per_month=None).order_by("pk"))


def _is_about(rule: AlertRule, key: ApiKey) -> bool:
    if key.project_id is None:
        return rule.created_by_id == key.user_id
    return rule.project_id == key.project_id


def _tell(rule: AlertRule, key: ApiKey, spent: Decimal) -> bool:
    limit = key.dollars_per_month
    if limit is None or rule.threshold is None or not _reaches(spent, limit, rule.threshold):
        return False
    year, month = this_month()
    message = (
        f"The key “{key.name}” (r1_{key.prefix}) has spent {dollars(spent)} of the {dollars(limit)} that it may spend in "
        f"{datetime(year, month, 1, tzinfo=UTC):%B %Y}, {spent / limit:.0%}."
    )
    once = f"{key.pk}/{year}-{month:02}/{limit.normalize():f}/{rule.threshold:g}"
    return alert_raise_once(rule=rule, api_key=key, once=once, message=message.replace("%.", "\u202f%."))


def _resolve(spent: dict[int, Decimal]) -> None:
    """Closes alerts of keys that are over: another month, a higher limit, no limit any more, or the key has ended."""
    found = Alert.objects.filter(resolved_at=None, api_key__isnull=False)
    for alert in found.select_related("api_key", "rule__webhook", "project"):
        key, rule = alert.api_key, alert.rule
        assert key is not None, "it was asked for"
        limit, used = key.dollars_per_month, spent.get(key.pk, NOTHING)
        if key.revoked_at is not None:
            alert_resolve(alert=alert, resolution="The key was revoked.")
        elif limit is None:
            alert_resolve(alert=alert, resolution="The key has no limit any more.")
        elif rule is not None and rule.is_enabled and rule.threshold and not _reaches(used, limit, rule.threshold):
            alert_resolve(alert=alert, resolution=f"It has spent {dollars(used)} of {dollars(limit)} this month.")


def _reaches(spent: Decimal, limit: Decimal, percent: float) -> bool:
    return spent > 0 and spent * 100 >= limit * Decimal(str(percent))


def dollars(amount: Decimal) -> str:
    """As people write it; a small amount with as many places as it needs."""
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount.normalize():f}"
