"""A supervisor and a real process: every end that a trainer can have, and everything that can die on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from r1platform.lib.leases import leases_of
from r1platform.lib.processes import ProcessRef, group_pids, stop_group
from r1platform.lib.storage import run_dir
from r1platform.models import DeviceLease, Node, Project
from tests.training_app.rows import make_run
from tests.training_app.stub_trainer import PLAN
from training_app import services, supervisor
from training_app.ingest import device_seconds_of
from training_app.models import Checkpoint, PhaseRun, RunAttempt, RunEvent
from training_app.scheduling import holder_of, schedule_once
from training_app.shutdown import attempts_release
from training_app.supervisor import AttemptSupervisor

pytestmark = pytest.mark.django_db(transaction=True)
STUB = Path(__file__).with_name("stub_trainer.py")


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What `condition` returns once it is true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return found


class Platform:
    """The scheduler by hand and supervisors in threads."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def supervise(self, attempt: RunAttempt) -> threading.Thread:
        def work() -> None:
            with contextlib.suppress(SystemExit):
                AttemptSupervisor(attempt.pk, fence=attempt.fence).run()
            connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)
        return thread

    def start(self, run: PhaseRun) -> RunAttempt:
        """The next attempt of a queued run, with its supervisor."""
        assert schedule_once() == 1
        attempt = run.attempts.latest("number")
        self.supervise(attempt)
        return attempt

    def finish(self) -> None:
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch, node: Node, settings: Any) -> Iterator[Platform]:
    settings.R1_NODE_NAME = node.name
    monkeypatch.setattr("training_app.scheduling.ask_to_supervise", lambda *_, **__: None)
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "command", lambda rundir, num_processes: [sys.executable, str(STUB), str(rundir)])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Platform()
    yield made
    for attempt in RunAttempt.objects.exclude(trainer_pid=None):
        stop_group(trainer(attempt), grace_seconds=0)
    made.finish()


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_plan(**values: Any) -> None:
        monkeypatch.setenv(PLAN, json.dumps({"steps": 20, **values}))

    set_plan()
    return set_plan


@pytest.fixture
def run(project: Project, alice: User, plan: Any) -> PhaseRun:
    return make_run(project, alice, gate_metric="quality_low", gate_threshold=0.85, gate_verdict="pending")


def trainer(attempt: RunAttempt) -> ProcessRef:
    attempt.refresh_from_db()
    assert attempt.trainer_pid is not None and attempt.trainer_started_at is not None
    return ProcessRef(attempt.trainer_pid, attempt.trainer_started_at, attempt.boot_id)


def steps_of(run: PhaseRun) -> list[int]:
    rows = RunEvent.objects.filter(run=run, kind="scalars").order_by("pk")
    return [int(step) for step in rows.values_list("payload__step", flat=True)]


def at_step(run: PhaseRun, step: int) -> None:
    until(lambda: RunEvent.objects.filter(run=run, kind="scalars", payload__step__gte=step).exists())


def test_a_run_to_its_end(platform: Platform, run: PhaseRun) -> None:
    attempt = platform.start(run)
    platform.finish()
    run.refresh_from_db()
    attempt.refresh_from_db()
    assert (run.state, run.gate_verdict) == ("succeeded", "passed"), run.state_reason
    assert attempt.state == "succeeded" and attempt.exit_code == 0
    assert steps_of(run) == list(range(1, 21))
    assert [m.after for m in run.transitions.order_by("pk")] == ["starting", "running", "succeeded"]
    assert Checkpoint.objects.get(is_final=True).step == 20
    assert not leases_of(holder_of(attempt)) and DeviceLease.objects.exists()
    assert "the stub begins" in services.checkpoint_dir(Checkpoint.objects.last()).parents[1].joinpath("stdout.log").read_text()  # type: ignore[arg-type]


def test_below_the_gate_it_is_held(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    plan(steps=3, quality=0.80)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert (run.state, run.gate_verdict) == ("gate_failed", "held")
    assert "0.800" in run.state_reason and "0.85" in run.state_reason


def test_a_gate_that_retries_takes_the_next_seed(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    PhaseRun.objects.filter(pk=run.pk).update(gate_action="retry")
    plan(steps=3, quality=0.80)
    seeds = []
    for _ in range(3):
        attempt = platform.start(run)
        platform.finish()
        rundir = AttemptSupervisor(attempt.pk, fence=0)
        rundir._claim()
        seeds.append(json.loads(rundir.rundir.config.read_text())["run"]["seed"])
    run.refresh_from_db()
    assert seeds == [0, 1, 2]
    assert run.state == "gate_failed" and run.attempts.count() == 3


def test_what_the_trainer_says_is_wrong_is_on_the_run(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    plan(error="No row fits the context.")
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "failed" and run.state_reason == "No row fits the context."
    assert run.result is not None and run.result["error"]["field"] == "dataset_version"
    assert run.attempts.count() == 1


@pytest.mark.parametrize(("verb", "state"), [("run_stop", "stopped"), ("run_pause", "paused")])
def test_asked_to_end_it_writes_a_checkpoint(
    verb: str, state: str, platform: Platform, run: PhaseRun, alice: User, plan: Callable[..., None]
) -> None:
    plan(steps=1000)
    platform.start(run)
    at_step(run, 3)
    getattr(services, verb)(run=run, user=alice)
    platform.finish()
    run.refresh_from_db()
    assert (run.state == state and run.finished_at is not None) or state == "paused"
    last = run.checkpoints.latest("step").step
    assert steps_of(run)[-1] == last
    plan(steps=last + 3)
    (services.run_retry if verb == "run_stop" else services.run_resume)(run=run, user=alice)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded" and steps_of(run) == list(range(1, last + 4))


def test_a_killed_trainer_is_resumed_from_its_checkpoint(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    plan(crash_at=8)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "queued" and "tried again" in run.state_reason
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded"
    assert steps_of(run) == [*range(1, 9), *range(6, 21)]


def test_a_killed_rank_is_as_good_as_a_killed_trainer(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    plan(rank_ended_at=8)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "queued" and "Rank 1 ended. It is tried again" in run.state_reason
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded" and steps_of(run) == [*range(1, 9), *range(6, 21)]


def test_one_that_always_dies_is_given_up_with_its_last_words(
    platform: Platform, run: PhaseRun, plan: Callable[..., None]
) -> None:
    plan(crash_at=2, always=True)
    for _ in range(3):
        platform.start(run)
        platform.finish()
    run.refresh_from_db()
    assert run.state == "failed" and "died 3 times" in run.state_reason and "the stub begins" in run.state_reason
    assert schedule_once() == 0 and not DeviceLease.objects.filter(released_at=None).exists()


def test_a_second_supervisor_adopts_the_trainer(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    """As after a kill of the first: the fence is raised, the first writes nothing more, no event is lost or doubled."""
    plan(steps=120)
    attempt = platform.start(run)
    at_step(run, 10)
    before = trainer(attempt)
    RunAttempt.objects.filter(pk=attempt.pk).update(fence=2, supervisor_pid=None)
    attempt.refresh_from_db()
    platform.supervise(attempt)
    platform.finish()
    run.refresh_from_db()
    assert trainer(attempt) == before
    assert run.state == "succeeded" and steps_of(run) == list(range(1, 121))
    assert run.attempts.count() == 1


def test_a_trainer_that_ended_unwatched_is_judged_by_its_result(
    platform: Platform, run: PhaseRun, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(steps=60)
    attempt = platform.start(run)
    at_step(run, 5)
    RunAttempt.objects.filter(pk=attempt.pk).update(fence=2, supervisor_pid=None)
    platform.finish()
    until(lambda: not group_pids(trainer(attempt)))
    attempt.refresh_from_db()
    platform.supervise(attempt)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded" and steps_of(run) == list(range(1, 61))


def test_a_supervisor_that_died_before_it_wrote_the_pid_leaves_no_second_trainer(
    platform: Platform, run: PhaseRun, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(steps=100_000)

    def die(*_: Any, **__: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(AttemptSupervisor, "_move", die)
        attempt = platform.start(run)
        platform.finish()
    attempt.refresh_from_db()
    assert attempt.trainer_pid is None and attempt.state == "claimed"
    plan(steps=5)
    RunAttempt.objects.filter(pk=attempt.pk).update(fence=2, supervisor_pid=None)
    attempt.refresh_from_db()
    platform.supervise(attempt)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded"
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_stub(pid)]
    assert not pids


def _is_stub(pid: str) -> bool:
    try:
        return str(STUB).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_node_that_goes_down_leaves_its_run_queued(platform: Platform, run: PhaseRun, plan: Callable[..., None]) -> None:
    plan(steps=1000)
    platform.start(run)
    at_step(run, 4)
    assert attempts_release(seconds=20)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "queued" and "shutting down" in run.state_reason and run.desired == "run"
    last = run.checkpoints.latest("step").step
    plan(steps=last + 2)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded" and steps_of(run) == list(range(1, last + 3))


def test_a_stopped_process_is_ended_with_its_children(
    platform: Platform, run: PhaseRun, alice: User, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that hears nothing any more is ended when its time is over."""
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "KILL_SECONDS", 0.2)
    plan(steps=1000)
    attempt = platform.start(run)
    at_step(run, 2)
    os.kill(trainer(attempt).pid, signal.SIGSTOP)
    services.run_stop(run=run, user=alice)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "stopped" and "not in order" in run.state_reason
    assert not group_pids(trainer(attempt)) and not DeviceLease.objects.filter(released_at=None).exists()


def test_resumed_while_it_still_stops_it_goes_on_from_its_checkpoint(
    platform: Platform, run: PhaseRun, alice: User, plan: Callable[..., None]
) -> None:
    plan(steps=1000)
    attempt = platform.start(run)
    at_step(run, 3)
    os.kill(trainer(attempt).pid, signal.SIGSTOP)
    services.run_pause(run=run, user=alice)
    services.run_resume(run=run, user=alice)
    os.kill(trainer(attempt).pid, signal.SIGCONT)
    platform.finish()
    run.refresh_from_db()
    assert (run.state, run.desired) == ("queued", "run")
    last = run.checkpoints.latest("step").step
    plan(steps=last + 2)
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "succeeded" and steps_of(run) == list(range(1, last + 3))


def test_a_trainer_whose_attempt_was_given_up_is_ended_by_its_own_supervisor(
    platform: Platform, run: PhaseRun, plan: Callable[..., None]
) -> None:
    plan(steps=100_000)
    attempt = platform.start(run)
    at_step(run, 3)
    RunAttempt.objects.filter(pk=attempt.pk).update(fence=9, state="lost")
    platform.finish()
    assert not group_pids(trainer(attempt)) and not leases_of(holder_of(attempt))


def test_a_fence_raised_while_the_trainer_starts_leaves_no_trainer(
    platform: Platform, run: PhaseRun, plan: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(steps=100_000)
    real = supervisor.spawn

    def overtaken(*args: Any, **kwargs: Any) -> ProcessRef:
        ref = real(*args, **kwargs)
        RunAttempt.objects.update(fence=9)
        return ref

    monkeypatch.setattr(supervisor, "spawn", overtaken)
    platform.start(run)
    platform.finish()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_stub(pid)]


def test_a_repetition_has_only_what_is_left_of_the_budget(
    platform: Platform, run: PhaseRun, plan: Callable[..., None]
) -> None:
    """Three steps of the stub take 0.3 device-seconds, and its process a little more."""
    PhaseRun.objects.filter(pk=run.pk).update(gate_action="retry", budget_device_seconds=60.0)
    plan(steps=3, quality=0.80)
    left = []
    for number in (1, 2):
        platform.start(run)
        platform.finish()
        config = json.loads((run_dir(run.pk, number) / "config.json").read_text())["run"]
        left.append(config["budget"]["device_seconds"])
    used = device_seconds_of(run.attempts.filter(number=1))
    assert used >= 0.3 and left == [60.0, pytest.approx(60.0 - used)]
    PhaseRun.objects.filter(pk=run.pk).update(device_seconds=60.0)
    run.refresh_from_db()
    assert run.state == "queued"


def test_what_the_database_cannot_hold_does_not_stop_the_end(
    platform: Platform, run: PhaseRun, plan: Callable[..., None]
) -> None:
    plan(error="A row holds \x00.")
    platform.start(run)
    platform.finish()
    run.refresh_from_db()
    assert run.state == "failed" and run.state_reason == "A row holds \ufffd."
