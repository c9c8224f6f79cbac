"""Alerts: what each kind of rule calls for and when it is over, that nobody is called twice, and what is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db.models.functions import Now
from django.utils import timezone

from model_core.errors import ConfigError
from r1platform import webhooks
from r1platform.models import Membership, Node, Project, WebhookDelivery
from tests.training_app.rows import make_attempt, make_run, scalars
from training_app import services
from training_app.alert_messages import alert_mail, mails_due
from training_app.alerts import alerts_look
from training_app.models import Alert, AlertRule, AlertWatch, PhaseRun, RunAttempt, RunEvent
from training_app.transitions import run_transition

pytestmark = pytest.mark.django_db
Told = Callable[..., None]


@pytest.fixture
def run(project: Project, alice: User) -> PhaseRun:
    return make_run(project, alice, state="running")


@pytest.fixture
def attempt(run: PhaseRun, node: Node) -> RunAttempt:
    return make_attempt(run, node)


@pytest.fixture
def rule(project: Project, alice: User) -> Callable[..., AlertRule]:
    def make(kind: str, **values: Any) -> AlertRule:
        return services.alert_rule_create(project=project, user=alice, **{"name": kind, "kind": kind, **values})

    return make


def told(attempt: RunAttempt, kind: str, **payload: Any) -> None:
    """An event as ingestion leaves it."""
    RunEvent.objects.create(
        run=attempt.run, attempt=attempt, seq=attempt.events.count() + 1, time=timezone.now(), kind=kind, payload=payload
    )


def steps(attempt: RunAttempt, name: str, *values: Any, first: int = 1) -> None:
    for step, value in enumerate(values, start=first):
        told(attempt, "scalars", **scalars(step, **{name: value}))


def found(run: PhaseRun) -> list[tuple[str, bool]]:
    """Message and whether it is open, in order."""
    return [(alert.message, alert.resolved_at is None) for alert in run.alerts.order_by("pk")]


def test_a_number_that_is_not_finite_calls_once_an_attempt(run: PhaseRun, attempt: RunAttempt, node: Node, rule: Any, alice: User) -> None:
    rule("nonfinite")
    steps(attempt, "loss", 1.0, "nan", "nan")
    alerts_look()
    steps(attempt, "loss", "inf", first=4)
    alerts_look()
    assert found(run) == [("loss is nan at step 2.", True)]
    services.alert_see(alert=run.alerts.get(), user=alice)
    steps(attempt, "loss", "nan", first=5)
    alerts_look()
    assert run.alerts.count() == 1
    RunAttempt.objects.filter(pk=attempt.pk).update(state="failed")
    steps(make_attempt(run, node, number=2), "loss", "nan", first=6)
    alerts_look()
    assert run.alerts.count() == 2


def test_of_one_metric_only(run: PhaseRun, attempt: RunAttempt, rule: Any) -> None:
    rule("nonfinite", metric="kl")
    steps(attempt, "loss", "nan")
    alerts_look()
    assert found(run) == []


@pytest.mark.parametrize(("kind", "bad", "good"), [("above", 2.0, 0.5), ("below", 0.5, 2.0)])
def test_a_threshold_calls_after_so_many_in_a_row_and_is_over_by_itself(
    kind: str, bad: float, good: float, run: PhaseRun, attempt: RunAttempt, rule: Any
) -> None:
    rule(kind, metric="kl", threshold=1.0, steps=3)
    steps(attempt, "kl", bad, bad, good, bad, bad)
    alerts_look()
    assert found(run) == []
    steps(attempt, "kl", bad, bad, first=6)
    alerts_look()
    assert found(run) == [(f"kl is {bad:g} at step 6, {kind} 1 for 3 measurements in a row.", True)]
    steps(attempt, "kl", None, "nan", first=8)
    alerts_look()
    assert run.alerts.get().resolved_at is None
    steps(attempt, "kl", good, first=10)
    alerts_look()
    assert run.alerts.get().resolution == f"kl is {good:g} at step 10."


def test_the_count_is_the_same_however_the_looks_fall(run: PhaseRun, attempt: RunAttempt, rule: Any) -> None:
    rule("above", metric="kl", threshold=1.0, steps=3)
    for step, value in enumerate([2, 2, 0, 2, 2, 2, 2, 0, 2, 2, 2], start=1):
        steps(attempt, "kl", value, first=step)
        alerts_look()
    one_by_one = found(run)
    Alert.objects.all().delete()
    AlertWatch.objects.all().delete()
    alerts_look()
    assert found(run) == one_by_one and [is_open for _, is_open in one_by_one] == [False, True]


def test_what_somebody_has_seen_is_not_told_again_while_it_lasts(run: PhaseRun, attempt: RunAttempt, rule: Any, alice: User) -> None:
    made = rule("above", metric="kl", threshold=1.0)
    steps(attempt, "kl", 2.0)
    alerts_look()
    assert services.alert_see(alert=run.alerts.get(), user=alice, note="I know.")
    assert not services.alert_see(alert=run.alerts.get(), user=alice, note="Again.")
    steps(attempt, "kl", 2.0, first=2)
    alerts_look()
    assert run.alerts.get().resolution == "I know." and run.alerts.get().resolved_by == alice
    services.alert_rule_update(rule=made, user=alice, threshold=1.5)
    steps(attempt, "kl", 2.0, first=3)
    alerts_look()
    assert run.alerts.count() == 2, "a changed rule looks anew"


def test_a_sign_of_gaming_is_what_the_trainer_warns_of(run: PhaseRun, attempt: RunAttempt, rule: Any) -> None:
    rule("sign", sign="dominance")
    told(attempt, "warning", message="Something else.")
    told(attempt, "warning", message="Completions grew.", sign="length_drift")
    alerts_look()
    assert found(run) == []
    told(attempt, "warning", message="format makes 95% of the rise.", sign="dominance")
    alerts_look()
    assert found(run) == [("format makes 95% of the rise.", True)]


def silent_since(run: PhaseRun, seconds: float) -> None:
    run.events.update(time=Now() - timedelta(seconds=seconds))


def test_silence_calls_until_something_is_heard(run: PhaseRun, attempt: RunAttempt, rule: Any, alice: User) -> None:
    rule("stall", seconds=60.0)
    steps(attempt, "loss", 1.0)
    alerts_look()
    assert found(run) == []
    silent_since(run, 100)
    alerts_look()
    assert found(run) == [("Nothing was heard of the run for 1\u202fm 40\u202fs.", True)]
    services.alert_see(alert=run.alerts.get(), user=alice)
    alerts_look()
    assert run.alerts.count() == 1
    steps(attempt, "loss", 1.0, first=2)
    alerts_look()
    silent_since(run, 70)
    run.alerts.update(raised_at=Now() - timedelta(seconds=90))
    alerts_look()
    assert [is_open for _, is_open in found(run)] == [False, True]
    steps(attempt, "loss", 1.0, first=3)
    alerts_look()
    assert [is_open for _, is_open in found(run)] == [False, False]


def test_an_end_calls_once_and_another_attempt_ends_the_alert(run: PhaseRun, attempt: RunAttempt, rule: Any, alice: User) -> None:
    rule("ended")
    alerts_look()
    run_transition(run=run, to="failed", reason="The loss became NaN.")
    alerts_look()
    alerts_look()
    assert found(run) == [("Failed. The loss became NaN.", True)]
    services.run_retry(run=run, user=alice)
    run_transition(run=run, to="starting")
    alerts_look()
    assert found(run) == [("Failed. The loss became NaN.", False)]
    run_transition(run=run, to="lost", reason="Again.")
    alerts_look()
    assert len(found(run)) == 2 and found(run)[1] == ("Lost. Again.", True)
    assert alerts_look() == 0, "what has ended and was looked at costs nothing"


def test_news_of_an_end_are_told_once_and_leave_nothing_open(
    run: PhaseRun, attempt: RunAttempt, rule: Any, project: Project, alice: User, settings: Any
) -> None:
    with_mail(project, settings, alice)
    rule("done", mail_to=[alice])
    alerts_look()
    assert found(run) == []
    run_transition(run=run, to="succeeded", reason="Its gate passed.")
    alerts_look()
    alerts_look()
    assert found(run) == [("Succeeded. Its gate passed.", False)]
    assert alert_mail(mails_due()[0]) and "Succeeded. Its gate passed." in mail.outbox[0].body


def test_what_was_before_the_rule_is_nobodys_alarm(run: PhaseRun, attempt: RunAttempt, rule: Any, project: Project, alice: User) -> None:
    steps(attempt, "kl", 9.0)
    over = make_run(project, alice, state="running")
    run_transition(run=over, to="failed", reason="Long ago.")
    rule("above", metric="kl", threshold=1.0)
    rule("ended")
    alerts_look()
    assert not Alert.objects.exists()


def test_a_rule_of_one_run_or_phase_or_project_looks_at_that_only(
    run: PhaseRun, attempt: RunAttempt, node: Node, rule: Any, project: Project, alice: User, charlie: User
) -> None:
    other = make_run(project, alice, state="running")
    theirs = services.alert_rule_create(
        project=Project.objects.get(memberships__user=charlie), user=charlie, name="all", kind="above", metric="kl", threshold=1.0
    )
    rule("above", metric="kl", threshold=1.0, run=other)
    rule("above", metric="kl", threshold=1.0, phase="reinforcement")
    rule("above", metric="kl", threshold=1.0, is_enabled=False)
    steps(attempt, "kl", 2.0)
    alerts_look()
    assert not Alert.objects.exists() and theirs.alerts.count() == 0
    steps(make_attempt(other, node), "kl", 2.0)
    alerts_look()
    assert Alert.objects.get().run == other


def test_a_webhook_is_told_of_beginning_and_end(run: PhaseRun, attempt: RunAttempt, rule: Any, project: Project, alice: User) -> None:
    hook, _secret = webhooks.webhook_create(project=project, user=alice, name="x", url="https://hooks.example.org/")
    rule("above", metric="kl", threshold=1.0, webhook=hook)
    steps(attempt, "kl", 2.0, 0.1)
    alerts_look()
    sent = list(WebhookDelivery.objects.order_by("pk").values_list("event", flat=True))
    assert sent == ["alert.raised", "alert.resolved"]
    assert f'"url": "http://127.0.0.1:8000/runs/{run.pk}/"' in WebhookDelivery.objects.earliest("pk").body


def with_mail(project: Project, settings: Any, *users: User) -> None:
    settings.R1_EMAIL_URL = "memorymail://"
    for user in users:
        User.objects.filter(pk=user.pk).update(email=f"{user.username}@example.org")


def test_members_are_mailed_once_without_seeing_each_other(
    run: PhaseRun, attempt: RunAttempt, rule: Any, project: Project, alice: User, bob: User, erin: User, settings: Any
) -> None:
    with_mail(project, settings, alice, bob, erin)
    rule("above", metric="kl", threshold=1.0, mail_to=[alice, bob])
    Membership.objects.filter(user=bob).delete()
    steps(attempt, "kl", 2.0)
    alerts_look()
    (due,) = mails_due()
    assert alert_mail(due) and not alert_mail(due) and mails_due() == []
    assert [message.bcc for message in mail.outbox] == [["alice@example.org"]] and mail.outbox[0].to == []
    assert f"/runs/{run.pk}/" in mail.outbox[0].body and "kl is 2 at step 1, above 1." in mail.outbox[0].body


def test_a_mail_server_that_is_away_is_tried_again(
    run: PhaseRun, attempt: RunAttempt, rule: Any, project: Project, alice: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_mail(project, settings, alice)
    rule("above", metric="kl", threshold=1.0, mail_to=[alice])
    steps(attempt, "kl", 2.0)
    alerts_look()
    (due,) = mails_due()

    def away(_self: Any) -> int:
        raise SMTPServerDisconnected("please run connect() first")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.mail.EmailMessage.send", away)
        assert not alert_mail(due)
    assert mails_due() == [] and "please run connect()" in Alert.objects.get().mail_error
    Alert.objects.update(mail_due_at=Now() - timedelta(seconds=1))
    assert alert_mail(due) and Alert.objects.get().mail_error == ""


def test_without_a_mail_server_nothing_waits_to_be_sent(run: PhaseRun, attempt: RunAttempt, rule: Any, alice: User) -> None:
    rule("above", metric="kl", threshold=1.0, mail_to=[alice])
    steps(attempt, "kl", 2.0)
    alerts_look()
    assert Alert.objects.get().mail_due_at is None


@pytest.mark.parametrize(
    ("values", "field"),
    [({"kind": "sometimes"}, "kind"), ({"kind": "above", "threshold": 1.0}, "metric"), ({"kind": "above", "metric": "kl"}, "threshold"),
     ({"kind": "above", "metric": "kl", "threshold": float("nan")}, "threshold"), ({"kind": "stall"}, "seconds"),
     ({"kind": "stall", "seconds": 1.0}, "seconds"), ({"kind": "sign", "sign": "x"}, "sign"), ({"kind": "ended", "phase": "x"}, "phase"),
     ({"kind": "ended", "name": " "}, "name"), ({"kind": "above", "metric": "kl", "threshold": 1.0, "steps": 0}, "steps")],
)  # fmt: skip
def test_a_rule_that_says_nothing_is_refused_at_its_field(values: dict[str, Any], field: str, rule: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        rule(values.pop("kind"), **values)
    assert refused.value.field == field and not AlertRule.objects.exists()


def test_nobody_of_elsewhere_is_mailed_and_nothing_of_elsewhere_is_named(rule: Any, charlie: User) -> None:
    theirs = Project.objects.get(memberships__user=charlie)
    hook, _secret = webhooks.webhook_create(project=theirs, user=charlie, name="x", url="https://hooks.example.org/")
    for values, field in (({"mail_to": [charlie]}, "mail_to"), ({"webhook": hook}, "webhook"), ({"run": make_run(theirs, charlie)}, "run")):
        with pytest.raises(ConfigError) as refused:
            rule("ended", **values)
        assert refused.value.field == field


def test_the_usual_rules_are_made_once(project: Project, alice: User) -> None:
    assert len(services.alert_rules_usual(project=project, user=alice)) == 9
    assert services.alert_rules_usual(project=project, user=alice) == []


def test_a_look_costs_the_same_however_many_events_there_are(
    run: PhaseRun, attempt: RunAttempt, rule: Any, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    rule("above", metric="kl", threshold=1.0, steps=10_000)
    rule("nonfinite")
    steps(attempt, "kl", *([2.0] * 50))
    with django_assert_max_num_queries(14):
        alerts_look()
