"""One writer wins, once, with one history row; a stale owner writes nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from r1platform.lib.transitions import IllegalTransition, StaleFence, transition
from r1platform.models import Node
from r1platform.services import project_create
from training_app.models import Launch, LaunchTransition, PhaseRun, Pipeline, RunAttempt

MOVES = {"running": {"held", "stopped"}, "held": {"running", "stopped"}}


def make_launch(user: User) -> Launch:
    project = project_create(user=user, name="Moves")
    pipeline = Pipeline.objects.create(project=project, name="p")
    return Launch.objects.create(pipeline=pipeline, number=1, state="running")


def move(launch: Launch, to: str, **options: Any) -> bool:
    return transition(Launch, pk=launch.pk, to=to, moves=MOVES, history=LaunchTransition, link="launch", **options)


def test_a_move_changes_the_row_and_leaves_one_history_row(alice: User) -> None:
    launch = make_launch(alice)
    assert move(launch, "held", reason="below the gate", user=alice, fields={"number": 7})
    launch.refresh_from_db()
    assert (launch.state, launch.state_reason, launch.number) == ("held", "below the gate", 7)
    row = launch.transitions.get()
    assert (row.before, row.after, row.reason, row.user) == ("running", "held", "below the gate", alice)


def test_a_move_to_where_it_is_does_nothing(alice: User) -> None:
    launch = make_launch(alice)
    assert not move(launch, "running")
    assert not launch.transitions.exists()


def test_a_move_outside_the_table_is_refused(alice: User) -> None:
    launch = make_launch(alice)
    assert move(launch, "stopped")
    with pytest.raises(IllegalTransition, match="is stopped; it cannot become running"):
        move(launch, "running")
    assert launch.transitions.count() == 1


def test_a_missing_row_says_so(db: None) -> None:
    with pytest.raises(Launch.DoesNotExist):
        transition(Launch, pk=12345, to="held", moves=MOVES, history=LaunchTransition, link="launch")


def test_a_stale_fence_writes_nothing(alice: User, node: Node) -> None:
    run = PhaseRun.objects.create(project=project_create(user=alice, name="Fenced"), name="r", phase="cold_start", config={})
    attempt = RunAttempt.objects.create(run=run, number=1, node=node, fence=2, state="claimed")
    moves = {"claimed": {"running"}}
    with pytest.raises(StaleFence):
        transition(RunAttempt, pk=attempt.pk, to="running", moves=moves, history=None, fence=1)
    attempt.refresh_from_db()
    assert attempt.state == "claimed"
    assert transition(RunAttempt, pk=attempt.pk, to="running", moves=moves, history=None, fence=2)


def test_the_callback_waits_for_the_commit(alice: User, django_capture_on_commit_callbacks: Any) -> None:
    launch, called = make_launch(alice), []
    with django_capture_on_commit_callbacks(execute=True):
        move(launch, "held", on_commit=lambda: called.append(True))
        assert not called
    assert called == [True]


@pytest.mark.django_db(transaction=True)
def test_of_many_racing_writers_one_wins() -> None:
    launch = make_launch(User.objects.create_user("racer"))
    barrier, won = threading.Barrier(6), []

    def race() -> None:
        try:
            barrier.wait(timeout=10)
            won.append(move(launch, "held"))
        finally:
            connection.close()

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(won) == [False] * 5 + [True]
    assert launch.transitions.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_writer_that_comes_between_is_seen() -> None:
    """Two different moves at once: the second sees the first's result and is judged by it."""
    launch = make_launch(User.objects.create_user("racer"))
    barrier, outcomes = threading.Barrier(2), []

    def race(to: str) -> None:
        try:
            barrier.wait(timeout=10)
            outcomes.append(move(launch, to))
        except IllegalTransition:
            outcomes.append(False)
        finally:
            connection.close()

    threads = [threading.Thread(target=race, args=[to]) for to in ("held", "stopped")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    launch.refresh_from_db()
    moves = list(launch.transitions.values_list("before", "after"))
    assert launch.state == "stopped"
    assert moves in ([("running", "held"), ("held", "stopped")], [("running", "stopped")])
