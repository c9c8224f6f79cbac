"""What people do with rules of alerts and with the alerts themselves."""

from __future__ import annotations

import math
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from model_core.detectors import DETECTORS
from model_core.errors import ConfigError
from model_core.phases import PHASES
from r1platform.models import Membership, Project
from r1platform.services import audit
from training_app.alerts import alert_resolve
from training_app.models import Alert, AlertKind, AlertRule

MAX_RULES = 100
COMPARED = frozenset({AlertKind.ABOVE, AlertKind.BELOW})
USUAL: tuple[dict[str, Any], ...] = (
    {"name": "A run failed", "kind": AlertKind.ENDED},
    {"name": "NaN or infinity", "kind": AlertKind.NONFINITE},
    {"name": "Nothing is heard", "kind": AlertKind.STALL, "seconds": 900.0},
    {"name": "The reward may be gamed", "kind": AlertKind.SIGN},
    {"name": "KL runs away", "kind": AlertKind.ABOVE, "metric": "kl", "threshold": 1.0, "steps": 3},
    {"name": "Entropy collapses", "kind": AlertKind.BELOW, "metric": "entropy", "threshold": 0.02, "steps": 5},
    {"name": "Answers are cut", "kind": AlertKind.ABOVE, "metric": "truncated_ratio", "threshold": 0.5, "steps": 5},
    {"name": "A key nears its limit", "kind": AlertKind.MONEY, "threshold": 80.0},
    {"name": "A key has spent its money", "kind": AlertKind.MONEY, "threshold": 100.0},
)
"""Rules that most teams want; thresholds to begin with, not truths."""


@transaction.atomic
def alert_rule_create(*, project: Project, user: User, mail_to: list[User] | None = None, **values: Any) -> AlertRule:
    """A rule; it looks at what comes after it. Raises ConfigError at its field."""
    if AlertRule.objects.filter(project=project).count() >= MAX_RULES:
        raise ConfigError(f"A project has at most {MAX_RULES} rules; delete one first.", field="name")
    _check_people(project, mail_to or [])
    rule = AlertRule.objects.create(project=project, created_by=user, **_checked(project, values))
    rule.mail_to.set(mail_to or [])
    _audit(rule, user, "alert_rule.create")
    rule.refresh_from_db()
    return rule


@transaction.atomic
def alert_rule_update(*, rule: AlertRule, user: User, mail_to: list[User] | None = None, **values: Any) -> None:
    """Changes what is given; what the rule remembered of its runs is forgotten. Raises ConfigError at its field."""
    kept = {name: getattr(rule, name) for name in ("name", "kind", "run", "phase", "metric", "threshold", "steps", "sign",
                                                   "seconds", "webhook", "is_enabled")}  # fmt: skip
    checked = _checked(rule.project, {**kept, **values})
    for name, value in checked.items():
        setattr(rule, name, value)
    rule.version += 1
    rule.save(update_fields=[*checked, "version"])
    if mail_to is not None:
        _check_people(rule.project, mail_to)
        rule.mail_to.set(mail_to)
    _audit(rule, user, "alert_rule.update")


def alert_rule_delete(*, rule: AlertRule, user: User) -> None:
    """Takes a rule away; its alerts stay, under its name."""
    _audit(rule, user, "alert_rule.delete")
    rule.delete()


@transaction.atomic
def alert_rules_usual(*, project: Project, user: User) -> list[AlertRule]:
    """Makes those of the usual rules whose name the project does not have yet; they mail who makes them."""
    mail_to = [user] if user.email else []
    known = set(AlertRule.objects.filter(project=project).values_list("name", flat=True))
    wanted = [values for values in USUAL if values["name"] not in known]
    return [alert_rule_create(project=project, user=user, mail_to=mail_to, **values) for values in wanted]


def alert_see(*, alert: Alert, user: User, note: str = "") -> bool:
    """Somebody has seen to an alert; what they say is kept. False when it was closed before."""
    closed = alert_resolve(alert=alert, resolution=note.strip() or "Seen.", user=user)
    if closed:
        target = f"run:{alert.run_id}" if alert.api_key_id is None else f"key:{alert.api_key_id}"
        audit(user=user, project=alert.project, action="alert.seen", target=target, detail={"alert": alert.pk})
    return closed


def _checked(project: Project, given: dict[str, Any]) -> dict[str, Any]:
    """The columns of a rule of this kind, those of other kinds empty."""
    kind = given.get("kind", "")
    name = str(given.get("name", "")).strip()
    if not 0 < len(name) <= 80:
        raise ConfigError(f"A rule's name has 1 to 80 characters; this one has {len(name)}.", field="name")
    if kind not in AlertKind.values:
        raise ConfigError(f"“{kind}” is no kind of rule; it is one of {', '.join(AlertKind.values)}.", field="kind")
    run, webhook, phase = given.get("run"), given.get("webhook"), given.get("phase", "")
    if run is not None and run.project_id != project.pk:
        raise ConfigError("There is no such run in this project.", field="run")
    if webhook is not None and webhook.project_id != project.pk:
        raise ConfigError("There is no such webhook in this project.", field="webhook")
    if phase and phase not in PHASES.names():
        raise ConfigError(f"There is no phase “{phase}”; there are {', '.join(PHASES.names())}.", field="phase")
    if kind == AlertKind.MONEY:
        run, phase = None, ""
    return {
        "name": name, "kind": kind, "run": run, "phase": phase, "webhook": webhook, "is_enabled": given.get("is_enabled", True),
        "metric": _metric(kind, str(given.get("metric", "")).strip()), "sign": _sign(kind, given.get("sign", "")),
        "threshold": _threshold(kind, given),
        "steps": _steps(given.get("steps", 1)) if kind in COMPARED else 1,
        "seconds": _positive(given) if kind == AlertKind.STALL else None,
    }  # fmt: skip


def _metric(kind: str, metric: str) -> str:
    if kind not in COMPARED | {AlertKind.NONFINITE}:
        return ""
    if kind in COMPARED and not metric:
        raise ConfigError("Say which metric is compared, as the charts name it: kl, entropy, len/mean.", field="metric")
    if len(metric) > 120:
        raise ConfigError("No metric has a name of more than 120 characters.", field="metric")
    return metric


def _sign(kind: str, sign: str) -> str:
    if kind != AlertKind.SIGN:
        return ""
    if sign and sign not in DETECTORS:
        raise ConfigError(f"There is no sign “{sign}”; there are {', '.join(DETECTORS)}.", field="sign")
    return sign


def _threshold(kind: str, given: dict[str, Any]) -> float | None:
    value = given.get("threshold")
    if kind == AlertKind.MONEY:
        if value is None or not 0 < value <= 100:
            raise ConfigError("Say at how many percent of its money a key calls, above 0 and at most 100.", field="threshold")
        return float(value)
    if kind not in COMPARED:
        return None
    if value is None or not math.isfinite(value):
        raise ConfigError("Say the number that the metric is compared with.", field="threshold")
    return float(value)


def _positive(given: dict[str, Any]) -> float:
    value = given.get("seconds")
    if value is None or not 10 <= value <= 30 * 86_400:
        raise ConfigError("Say after how many seconds without a word, 10 to 2592000 (30 days).", field="seconds")
    return float(value)


def _steps(value: int) -> int:
    if not 1 <= value <= 10_000:
        raise ConfigError(f"It is 1 to 10000 measurements in a row, not {value}.", field="steps")
    return value


def _check_people(project: Project, people: list[User]) -> None:
    members = set(Membership.objects.filter(project=project).values_list("user", flat=True))
    for user in people:
        if user.pk not in members:
            raise ConfigError(f"{user.get_username()} is no member of this project; only members are mailed.", field="mail_to")


def _audit(rule: AlertRule, user: User, action: str) -> None:
    audit(user=user, project=rule.project, action=action, target=f"alert_rule:{rule.pk}", detail={"name": rule.name})
