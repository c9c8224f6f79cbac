"""Deployments that sleep when nobody asks: the device is given back, the next question starts them and waits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from r1platform.lib.leases import leases_of
from r1platform.models import Device, DeviceKind, Node, Project
from serving_app import services
from serving_app.gateway import waking
from serving_app.models import Deployment, Message, Replica, UsageRecord
from serving_app.placement import deployments_to_reconcile, reconcile_deployment
from serving_app.sleeping import deployment_wake, sleep_step
from serving_app.states import GENERATION_ENDS
from tests.serving_app.conftest import ENGINE_KEY, Served, deploy, key_of, reconciled, replicas, until
from tests.serving_app.engine_server import Engine
from tests.serving_app.test_gateway import ask, chat
from training_app.models import Checkpoint

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = timezone.now() - timedelta(hours=1)


def quiet(deployment: Deployment) -> None:
    """As if everything had happened an hour ago."""
    Deployment.objects.filter(pk=deployment.pk).update(created_at=LONG_AGO, woken_at=LONG_AGO)
    Replica.objects.filter(revision__deployment=deployment).update(ready_at=LONG_AGO)
    UsageRecord.objects.update(created_at=LONG_AGO)


@pytest.fixture
def asleep(project: Project, checkpoint: Checkpoint) -> Deployment:
    """“sums”, which sleeps, as rows."""
    return deploy(project, checkpoint, state="asleep", is_asleep=True, idle_seconds=60)


def test_sleeps_gives_its_device_back_and_the_next_request_waits_for_it(
    create: Any, node: Node, web: Served, alice: User
) -> None:
    Device.objects.filter(node=node).update(kind=DeviceKind.CUDA)
    made = reconciled(create(idle_seconds=60), "ready")
    (replica,) = replicas(made)
    assert len(leases_of(f"replica:{replica.pk}")) == 1
    quiet(made)
    reconciled(made, "asleep")
    assert made.state_reason == "Nobody asked for 1 minute. It starts at the next question." and made.desired_replicas == 1
    until(lambda: reconcile_deployment(made.pk) and not leases_of(f"replica:{replica.pk}"))
    until(lambda: made.pk not in deployments_to_reconcile())
    key = key_of(alice)
    listed = httpx.get(f"{web.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    assert [(one["id"], one["state"]) for one in listed] == [("sums", "asleep")]
    with ThreadPoolExecutor(3) as callers:
        asked = [callers.submit(ask, web, key, chat("say hi")) for _ in range(3)]
        until(lambda: reconcile_deployment(made.pk) and all(one.done() for one in asked))
    assert [one.result().status_code for one in asked] == [200] * 3
    reconciled(made, "ready")
    moves = [(one.after, one.reason) for one in made.transitions.all()]
    assert [after for after, _reason in moves].count("pending") == 1, "three callers wake it once"
    assert ("pending", "Somebody asks.") in moves and len(replicas(made)) == 2
    reconcile_deployment(made.pk)
    assert Deployment.objects.get(pk=made.pk).state == "ready", "it has just been asked"


@pytest.mark.parametrize("what", ["never", "request", "long request", "runs", "answer", "revision", "woken"])
def test_what_is_in_use_does_not_sleep(
    what: str, project: Project, checkpoint: Checkpoint, alice: User, redis_url: str
) -> None:
    made = deploy(project, checkpoint, urls=("http://127.0.0.1:9",), idle_seconds=60)
    quiet(made)
    if what == "never":
        Deployment.objects.update(idle_seconds=0)
    if what == "request":
        UsageRecord.objects.create(deployment=made, model_name="sums")
    if what == "long request":
        for minutes_ago, seconds in ((30, 30 * 60), (20, 1)):
            row = UsageRecord.objects.create(deployment=made, model_name="sums", seconds=seconds)
            UsageRecord.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(minutes=minutes_ago))
    if what == "runs":
        Replica.objects.update(metrics={"running": 1})
    if what == "answer":
        chat = services.conversation_create(project=project, user=alice, deployment=made)
        Message.objects.create(conversation=chat, role="assistant", state="queued", deployment=made)
    if what == "revision":
        services.revision_create(deployment=made, user=alice)
    if what == "woken":
        Deployment.objects.update(woken_at=timezone.now())
    sleep_step(made.pk)
    made.refresh_from_db()
    assert made.state == "ready" and not made.is_asleep


def test_waiting_has_an_end_and_room_for_so_many(
    asleep: Deployment, web: Served, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing starts it here, as when no device is free."""
    monkeypatch.setattr(waking, "WAKE_SECONDS", 0.6)
    monkeypatch.setattr(waking, "MAX_WAITING", 2)
    key = key_of(alice)
    with ThreadPoolExecutor(6) as callers:
        asked = [callers.submit(ask, web, key, chat("say hi")) for _ in range(6)]
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["Retry-After"] for answer in answers} == {str(waking.RETRY_SECONDS)}
    words = [answer.json()["error"]["message"] for answer in answers]
    full = [word for word in words if word.startswith("2 requests wait for “sums” to start already.")]
    assert len(full) == 4 and len({*words} - {*full}) == 1, words
    assert "“sums” is pending." in next(word for word in words if word not in full)
    assert not +waking._waiting


def test_caller_that_leaves_gives_its_place_back(asleep: Deployment, web: Served, alice: User) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{web.url}/v1/chat/completions", json=chat("say hi"), timeout=0.5,
            headers={"Authorization": f"Bearer {key_of(alice)}"},
        )  # fmt: skip
    until(lambda: not +waking._waiting, seconds=5)


def test_question_in_the_playground_wakes_it(
    asleep: Deployment, project: Project, alice: User, engine: Engine, redis_url: str
) -> None:
    talk = services.conversation_create(project=project, user=alice, deployment=asleep)
    _said, answer = services.message_send(conversation=talk, user=alice, content="say good morning")
    until(lambda: Deployment.objects.get(pk=asleep.pk).state == "pending")
    Replica.objects.create(
        revision=asleep.revisions.get(), number=1, state="ready", base_url=engine.url, engine_key=ENGINE_KEY,  # type: ignore[attr-defined]
    )  # fmt: skip
    until(lambda: Message.objects.filter(pk=answer.pk, state__in=GENERATION_ENDS).exists())
    answer.refresh_from_db()
    assert (answer.state, answer.content) == ("done", "good morning ")


def test_waking_stopping_and_new_revisions_agree(asleep: Deployment, alice: User) -> None:
    start = threading.Barrier(2)

    def wake() -> None:
        start.wait(timeout=10)
        try:
            deployment_wake(asleep.pk)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as both:
        for one in [both.submit(wake), both.submit(wake)]:
            one.result()
    asleep.refresh_from_db()
    assert asleep.state == "pending" and asleep.transitions.filter(after="pending").count() == 1
    services.deployment_stop(deployment=asleep, user=alice)
    deployment_wake(asleep.pk)
    asleep.refresh_from_db()
    assert asleep.state == "stopped" and not asleep.is_asleep, "a question does not start what a person has stopped"


def test_new_revision_wakes_what_sleeps(asleep: Deployment, alice: User) -> None:
    made = services.revision_create(deployment=asleep, user=alice)
    asleep.refresh_from_db()
    assert made.state == "warming" and asleep.state == "pending" and not asleep.is_asleep
    assert asleep.transitions.get().reason == "Revision 2 is to start."
    services.deployment_idle(deployment=asleep, user=alice, idle_seconds=0)
    asleep.refresh_from_db()
    assert asleep.idle_seconds == 0
