"""Who gets the devices: in order, all or nothing, never twice; and who waits knows why."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from r1platform.lib.leases import leases_of
from r1platform.models import Device, DeviceLease, Node, Project
from tests.training_app.rows import make_attempt, make_run, make_version
from training_app import services
from training_app.models import Checkpoint, PhaseRun, RunAttempt
from training_app.reconciling import attempt_reclaim, reconcile_once
from training_app.scheduling import holder_of, schedule_once
from training_app.transitions import run_transition

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int, str]]]:
    """What was asked of the nodes; there is no broker here."""
    found: list[tuple[int, int, str]] = []

    def ask(attempt: int, fence: int, *, node_name: str) -> None:
        found.append((attempt, fence, node_name))

    monkeypatch.setattr("training_app.scheduling.ask_to_supervise", ask)
    monkeypatch.setattr("training_app.reconciling.ask_to_supervise", ask)
    yield found


def test_a_queued_run_gets_its_devices_and_a_supervisor(project: Project, alice: User, node: Node, sent: list) -> None:
    run = make_run(project, alice, num_processes=2)
    assert schedule_once() == 1
    run.refresh_from_db()
    attempt = run.attempts.get()
    assert run.state == "starting" and attempt.state == "claimed" and attempt.number == 1
    assert [lease.device.index for lease in leases_of(holder_of(attempt))] == [0, 1]
    assert sent == [(attempt.pk, 1, node.name)]
    assert schedule_once() == 0


def test_first_in_first_out_also_for_the_large(project: Project, alice: User, node: Node) -> None:
    holds, large, small = (make_run(project, alice, num_processes=num) for num in (1, 2, 1))
    assert schedule_once() == 1
    large.refresh_from_db()
    small.refresh_from_db()
    holds.refresh_from_db()
    assert (holds.state, large.state, small.state) == ("starting", "queued", "queued")
    assert "2" in large.waiting_reason and f"run {large.pk}" in small.waiting_reason
    assert RunAttempt.objects.count() == 1 and DeviceLease.objects.count() == 1


def test_without_a_node_it_says_so(project: Project, alice: User) -> None:
    run = make_run(project, alice)
    schedule_once()
    run.refresh_from_db()
    assert run.state == "queued" and "No node is up" in run.waiting_reason


def test_a_draining_node_gets_nothing(project: Project, alice: User, node: Node) -> None:
    Node.objects.update(draining=True)
    make_run(project, alice)
    assert schedule_once() == 0


def test_a_run_waits_for_its_data_and_fails_with_it(project: Project, alice: User, node: Node) -> None:
    version = make_version(project, state="preparing")
    run = make_run(project, alice, dataset_version=version)
    other = make_run(project, alice)
    assert schedule_once() == 1
    run.refresh_from_db()
    other.refresh_from_db()
    assert run.state == "queued" and "to be prepared" in run.waiting_reason and other.state == "starting"
    type(version).objects.filter(pk=version.pk).update(state="failed", state_reason="No rows.")
    schedule_once()
    run.refresh_from_db()
    assert run.state == "failed" and "No rows." in run.state_reason


def test_a_phase_waits_for_its_sources_and_takes_their_final_checkpoints(project: Project, alice: User, node: Node) -> None:
    pipeline = services.pipeline_from_template(
        project=project, user=alice, template="article", name="P", dataset_version=make_version(project)
    )
    launch = services.pipeline_launch(pipeline=pipeline, user=alice)
    cold, rl, sampling = launch.runs.order_by("position")
    final = succeed(cold, node)
    schedule_once()
    rl.refresh_from_db()
    sampling.refresh_from_db()
    assert rl.state == "starting" and rl.starts_from == final
    assert sampling.state == "waiting" and sampling.waiting_reason == "Waits for reinforcement."
    RunAttempt.objects.filter(run=rl).update(state="succeeded")
    DeviceLease.objects.update(released_at=Now())
    run_transition(run=rl, to="running")
    best = Checkpoint.objects.create(run=rl, attempt=rl.attempts.get(), step=9, is_final=True)
    run_transition(run=rl, to="succeeded")
    schedule_once()
    sampling.refresh_from_db()
    assert sampling.state == "starting" and sampling.starts_from == final and sampling.rollouts_from == best


def succeed(run: PhaseRun, node: Node) -> Checkpoint:
    attempt = make_attempt(run, node, state="succeeded")
    for step, final in ((5, False), (8, True)):
        made = Checkpoint.objects.create(run=run, attempt=attempt, step=step, is_final=final)
    for state in ("starting", "running", "succeeded"):
        run_transition(run=run, to=state)
    return made


def test_a_paused_launch_starts_nothing(project: Project, alice: User, node: Node) -> None:
    pipeline = services.pipeline_from_template(
        project=project, user=alice, template="article", name="P", dataset_version=make_version(project)
    )
    launch = services.pipeline_launch(pipeline=pipeline, user=alice)
    services.launch_pause(launch=launch, user=alice)
    assert schedule_once() == 0


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_start_it_once(project: Project, alice: User, node: Node) -> None:
    make_run(project, alice, num_processes=2)
    make_run(project, alice, num_processes=2)
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait()
        schedule_once()
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert RunAttempt.objects.count() == 1 and DeviceLease.objects.filter(released_at=None).count() == 2


def test_a_silent_supervisor_is_replaced_once(project: Project, alice: User, node: Node, sent: list) -> None:
    run = make_run(project, alice, state="running")
    attempt = make_attempt(run, node, heartbeat_at=timezone.now() - timedelta(seconds=20), supervisor_pid=4)
    reconcile_once()
    reconcile_once()
    attempt.refresh_from_db()
    assert attempt.fence == 2 and attempt.supervisor_pid is None and attempt.state == "running"
    assert sent == [(attempt.pk, 2, node.name)]


def test_a_silent_node_loses_its_attempt_after_a_while(project: Project, alice: User, node: Node, sent: list) -> None:
    run = make_run(project, alice, state="running")
    attempt = make_attempt(run, node, heartbeat_at=timezone.now() - timedelta(seconds=100))
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=100))
    another_node()
    reconcile_once()
    run.refresh_from_db()
    assert run.state == "running" and not sent
    RunAttempt.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=200))
    reconcile_once()
    run.refresh_from_db()
    attempt.refresh_from_db()
    assert run.state == "lost" and attempt.state == "lost" and node.name in run.state_reason


def test_a_lost_attempt_keeps_its_devices_until_its_node_frees_them(
    project: Project, alice: User, node: Node, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr("training_app.reconciling.ask_to_reclaim", lambda pk, *, node_name: asked.append((pk, node_name)))
    settings.R1_NODE_NAME = node.name
    run = make_run(project, alice)
    schedule_once()
    attempt = run.attempts.get()
    other = another_node()
    silence(node, attempt)
    reconcile_once()
    attempt.refresh_from_db()
    assert attempt.state == "lost" and len(leases_of(holder_of(attempt))) == 1 and asked == []
    services.run_retry(run=run, user=alice)
    schedule_once()
    assert run.attempts.get(number=2).node == other, "nothing is placed on a device that may be busy"
    Node.objects.filter(pk=node.pk).update(heartbeat_at=Now())
    reconcile_once()
    assert asked == [(attempt.pk, node.name)]
    attempt_reclaim(attempt.pk)
    assert not leases_of(holder_of(attempt))


def test_nothing_is_given_up_by_a_machine_that_has_just_woken_up(project: Project, alice: User, node: Node) -> None:
    run = make_run(project, alice)
    schedule_once()
    silence(node, run.attempts.get())
    reconcile_once()
    run.refresh_from_db()
    assert run.state == "starting"


def test_a_run_that_fits_no_node_lets_the_others_pass(project: Project, alice: User, node: Node) -> None:
    large, small = make_run(project, alice, num_processes=64), make_run(project, alice)
    assert schedule_once() == 1
    large.refresh_from_db()
    small.refresh_from_db()
    assert small.state == "starting" and large.state == "queued"
    assert "64 devices" in large.waiting_reason and "has 2" in large.waiting_reason


def test_the_error_of_an_older_attempt_is_gone_when_the_next_starts(project: Project, alice: User, node: Node) -> None:
    run = make_run(project, alice, result={"error": {"message": "old"}})
    schedule_once()
    run.refresh_from_db()
    assert run.state == "starting" and run.result is None


def another_node() -> Node:
    made = Node.objects.create(name="node-2", heartbeat_at=Now())
    Device.objects.create(node=made, kind="cpu", index=0, name="CPU share")
    return made


def silence(node: Node, attempt: RunAttempt) -> None:
    """Neither the node nor the attempt has been heard of for long."""
    long_ago = timezone.now() - timedelta(seconds=200)
    Node.objects.filter(pk=node.pk).update(heartbeat_at=long_ago)
    RunAttempt.objects.filter(pk=attempt.pk).update(heartbeat_at=long_ago)
