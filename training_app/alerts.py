"""Looks at live runs by the rules of their projects and calls people. The beat asks every few seconds.

Each event of a run is looked at once: the cursor, the counts of the rules and the alerts that follow are one transaction.
What a rule says of one event is in `training_app.alert_rules`; what is sent in `training_app.alert_messages`.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from r1platform.lib.live import publish
from r1platform.models import ApiKey
from r1platform.templatetags.r1 import duration
from training_app.alert_messages import tell_raised, tell_resolved
from training_app.alert_rules import judged, looks_at
from training_app.models import Alert, AlertKind, AlertRule, AlertWatch, PhaseRun, RunEvent
from training_app.states import LIVE_RUNS, RunState
from training_app.transitions import RUN_ENDS

MAX_EVENTS = 2000
"""Events of one run that one look takes in; the next look goes on."""
BAD_ENDS = {RunState.FAILED, RunState.LOST, RunState.GATE_FAILED}
_KINDS = ["scalars", "warning"]


def alerts_look() -> int:
    """Looks at every run that has something new; the number of runs."""
    rules: dict[int, list[AlertRule]] = defaultdict(list)
    for rule in AlertRule.objects.filter(is_enabled=True).exclude(kind=AlertKind.MONEY).select_related("webhook"):
        rules[rule.project_id].append(rule)
    looked = 0
    for run_id, project_id in _to_look_at(rules):
        looked += _look(run_id, rules[project_id])
    return looked


def _to_look_at(rules: dict[int, list[AlertRule]]) -> list[tuple[int, int]]:
    """Runs that hold devices, and those whose end nobody has looked at since the first rule was made."""
    ended: Q = Q(pk__in=[])
    for project_id, found in rules.items():
        since = min(rule.created_at for rule in found)
        ended |= Q(project=project_id, finished_at__gte=since)
    unseen = Q(alert_watch=None) | Q(alert_watch__finished_at=None) | ~Q(alert_watch__finished_at=F("finished_at"))
    wanted = PhaseRun.objects.filter(Q(project__in=list(rules), state__in=LIVE_RUNS) | (ended & unseen))
    return list(wanted.order_by("pk").values_list("pk", "project_id"))


@transaction.atomic
def _look(run_id: int, rules: list[AlertRule]) -> bool:
    """One run; False when another look is at it."""
    run = PhaseRun.objects.select_related("project").get(pk=run_id)
    mine = [rule for rule in rules if looks_at(rule, run)]
    AlertWatch.objects.get_or_create(run=run, defaults={"last_event_id": _begin(run, rules)})
    watch = AlertWatch.objects.select_for_update(skip_locked=True).filter(run=run).first()
    if watch is None:
        return False
    events = list(RunEvent.objects.filter(run=run, pk__gt=watch.last_event_id, kind__in=_KINDS).order_by("pk")[:MAX_EVENTS])
    look = _Look(run, watch)
    for event in events:
        for rule in mine:
            look.event(rule, event)
    if len(events) < MAX_EVENTS:
        for rule in mine:
            look.standing(rule)
        watch.finished_at = run.finished_at
    if events:
        watch.last_event_id = events[-1].pk
    watch.memos = {rule.memo_key: watch.memos[rule.memo_key] for rule in mine if rule.memo_key in watch.memos}
    watch.save(update_fields=["last_event_id", "memos", "finished_at"])
    return True


def _begin(run: PhaseRun, rules: list[AlertRule]) -> int:
    """The last event from before the first rule: what was then is nobody's alarm."""
    before = run.events.filter(time__lt=min(rule.created_at for rule in rules)).order_by("-pk")
    return before.values_list("pk", flat=True).first() or 0


class _Look:
    """What one look at a run brings about."""

    def __init__(self, run: PhaseRun, watch: AlertWatch) -> None:
        self.run, self.watch = run, watch
        self.open = {alert.rule_id: alert for alert in Alert.objects.filter(run=run, resolved_at=None)}

    def event(self, rule: AlertRule, event: RunEvent) -> None:
        """What a rule makes of an event that came after it."""
        found = judged(rule, event, self.watch.memos.get(rule.memo_key, 0)) if event.time >= rule.created_at else None
        if found is None:
            return
        self.watch.memos[rule.memo_key] = found.memo
        if found.message:
            self.raise_(rule, found.message, found.step)
        elif found.over and rule.pk in self.open:
            alert_resolve(alert=self.open.pop(rule.pk), resolution=found.over)

    def standing(self, rule: AlertRule) -> None:
        """Conditions on the run as it stands now."""
        if rule.kind == AlertKind.ENDED:
            self.set(rule, self.run.state in BAD_ENDS, f"{self.run.get_state_display()}. {self.run.state_reason}".strip(),
                     over=f"The run is {self.run.get_state_display().lower()}.")  # fmt: skip
        elif rule.kind == AlertKind.DONE and self.run.state in RUN_ENDS:
            self.say_once(rule, f"{self.run.get_state_display()}. {self.run.state_reason}".strip())
        elif rule.kind == AlertKind.STALL:
            self.stall(rule)

    def stall(self, rule: AlertRule) -> None:
        """Silence of a run that trains; one that somebody has seen to is not told again."""
        since = self.heard_at() if self.run.state == RunState.RUNNING else None
        silent = (timezone.now() - since).total_seconds() if since else 0.0
        holds = silent > (rule.seconds or 0)
        if holds and since and rule.alerts.filter(run=self.run, raised_at__gte=since, resolved_at__isnull=False).exists():
            return
        self.set(rule, holds, f"Nothing was heard of the run for {duration(silent)}.", over="The run is heard again, or has ended.")

    def say_once(self, rule: AlertRule, message: str) -> None:
        """News that ask nothing of anybody: told, and over at once. An end is looked at once, so that it is told once."""
        made = Alert.objects.create(
            project=self.run.project, run=self.run, rule=rule, name=rule.name, message=message, resolved_at=Now(),
            resolution="It asks nothing of you.",
        )  # fmt: skip
        made.refresh_from_db()
        tell_raised(made, rule)
        transaction.on_commit(lambda: _publish(made))

    def heard_at(self) -> datetime | None:
        """When its newest event was, or its newest move."""
        newest = self.run.events.order_by("-pk").values_list("time", flat=True).first()
        moved = self.run.transitions.order_by("-pk").values_list("at", flat=True).first()
        return max(filter(None, [newest, moved]), default=None)

    def set(self, rule: AlertRule, holds: bool, message: str, *, over: str) -> None:
        if holds:
            self.raise_(rule, message, None)
        elif rule.pk in self.open:
            alert_resolve(alert=self.open.pop(rule.pk), resolution=over)

    def raise_(self, rule: AlertRule, message: str, step: int | None) -> None:
        """Opens an alert unless the rule has an open one here."""
        if rule.pk in self.open:
            return
        made = Alert.objects.create(
            project=self.run.project, run=self.run, rule=rule, name=rule.name, message=message, step=step
        )
        made.refresh_from_db()
        self.open[rule.pk] = made
        tell_raised(made, rule)
        transaction.on_commit(lambda: _publish(made))


@transaction.atomic
def alert_raise_once(*, rule: AlertRule, api_key: ApiKey, once: str, message: str) -> bool:
    """Tells of a key what `once` names, unless the rule has told it; of many callers at the same moment one does."""
    given = {"project": rule.project, "api_key": api_key, "name": rule.name, "message": message}
    made, is_new = Alert.objects.get_or_create(rule=rule, once=once, defaults=given)
    if is_new:
        made.refresh_from_db()
        tell_raised(made, rule)
        transaction.on_commit(lambda: _publish(made))
    return is_new


@transaction.atomic
def alert_resolve(*, alert: Alert, resolution: str, user: User | None = None) -> bool:
    """Closes an open alert; False when somebody else, or its end, was first."""
    closed = Alert.objects.filter(pk=alert.pk, resolved_at=None).update(
        resolved_at=Now(), resolved_by=user, resolution=resolution, mail_due_at=None
    )
    if not closed:
        return False
    alert.refresh_from_db()
    tell_resolved(alert)
    transaction.on_commit(lambda: _publish(alert))
    return True


def _publish(alert: Alert) -> None:
    if alert.run_id is not None:
        publish(f"run.{alert.run_id}", "alert")
    publish(f"overview.{alert.project_id}", "alert", run=alert.run_id)
