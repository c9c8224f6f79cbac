"""Each line of events.jsonl gets into the tables exactly once, whatever dies and whoever takes over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from model_core.rundir import RunDir
from r1platform.lib.transitions import StaleFence
from r1platform.models import Node, Project
from tests.training_app.rows import make_attempt, make_run, rundir_of, scalars, tell
from training_app import ingest as ingesting
from training_app.ingest import Ingest, device_seconds_of
from training_app.models import Checkpoint, MetricSeries, PhaseRun, RunAttempt, RunEvent
from training_app.selectors import run_events, run_metrics
from training_app.verdict import attempt_finish

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(project: Project, alice: User) -> PhaseRun:
    return make_run(project, alice)


@pytest.fixture
def attempt(run: PhaseRun, node: Node) -> RunAttempt:
    return make_attempt(run, node)


@pytest.fixture
def rundir(attempt: RunAttempt) -> RunDir:
    return rundir_of(attempt)


def drain(attempt: RunAttempt) -> Ingest:
    attempt.refresh_from_db()
    found = Ingest(attempt, rundir_of(attempt), fence=attempt.fence)
    while found.take():
        pass
    return found


def losses(run: PhaseRun) -> dict[int, float | None]:
    (series,) = run_metrics(run, names=["loss"])["series"]
    return dict(zip(series["x"], series["last"], strict=True))


def test_what_was_told_is_in_the_tables(run: PhaseRun, attempt: RunAttempt, rundir: RunDir) -> None:
    tell(rundir, 1, "started", phase="cold_start")
    tell(rundir, 2, "progress", stage="updating", step=1, total=9, fraction=1 / 9, remaining_seconds=8.0)
    tell(rundir, 3, "scalars", **scalars(1, loss=2.5, lr="nan", skipped=None))
    tell(rundir, 4, "checkpoint", step=1, path="checkpoints/step_00000001", metrics={"accuracy": 0.5}, size_bytes=7,
         sha256="c" * 64, is_final=False)  # fmt: skip
    tell(rundir, 5, "evaluation", step=1, when="before", accuracy=0.25, quality=0.5, examples=[{"x": "\u0000"}])
    assert drain(attempt).started
    run.refresh_from_db()
    assert [event["seq"] for event in run_events(run)] == [1, 2, 3, 4, 5]
    assert run.progress["step"] == 1 and run.num_tokens == 100 and run.device_seconds == 0.5
    assert run.summary["loss"] == 2.5 and run.summary["evaluation"]["quality"] == 0.5
    assert run.summary["accuracy_before"] == 0.25 and "examples" not in run.summary["evaluation"]
    assert Checkpoint.objects.get().metrics == {"accuracy": 0.5}
    (lr,) = run_metrics(run, names=["lr"])["series"]
    assert (lr["nonfinite"], lr["last"], lr["min"]) == ([1], [None], [None])
    assert not MetricSeries.objects.filter(name="skipped").exists()


def test_time_and_tokens_are_taken_from_every_event_that_tells_them(
    run: PhaseRun, attempt: RunAttempt, rundir: RunDir
) -> None:
    tell(rundir, 1, "progress", stage="sampling", step=0, total=9, fraction=0.1, tokens=700, process_seconds=4.5)
    drain(attempt)
    run.refresh_from_db()
    assert run.num_tokens == 700 and run.device_seconds == 4.5


def test_an_attempt_has_used_its_devices_from_start_to_end(run: PhaseRun, attempt: RunAttempt, rundir: RunDir) -> None:
    tell(rundir, 1, "started", phase="cold_start")
    drain(attempt)
    PhaseRun.objects.filter(pk=run.pk).update(num_processes=2, state="running")
    RunAttempt.objects.filter(pk=attempt.pk).update(started_at=timezone.now() - timedelta(seconds=50))
    attempt.refresh_from_db()
    error = {"type": "MemoryError", "message": "It did not fit."}
    attempt_finish(attempt, fence=attempt.fence, result={"status": "failed", "error": error}, how="")
    run.refresh_from_db()
    assert run.state == "failed" and run.device_seconds == pytest.approx(100, abs=10)
    assert device_seconds_of(run.attempts.all()) == pytest.approx(run.device_seconds, abs=1)
    RunAttempt.objects.filter(pk=attempt.pk).update(state="lost")
    assert device_seconds_of(run.attempts.all()) == 0


def test_an_unfinished_line_waits_and_a_broken_one_is_left_out(attempt: RunAttempt, rundir: RunDir) -> None:
    tell(rundir, 1, "warning", message="one")
    with rundir.events.open("a") as file:
        file.write('{"seq": 2, "broken\n{"seq": 3, "time": 1.0, "kind": "warn')
    drain(attempt)
    assert RunEvent.objects.count() == 1
    with rundir.events.open("a") as file:
        file.write('ing", "payload": {}}\n')
    drain(attempt)
    assert list(RunEvent.objects.values_list("seq", flat=True)) == [1, 3]


def test_a_supervisor_that_dies_in_the_middle_leaves_all_or_nothing(
    run: PhaseRun, attempt: RunAttempt, rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 21):
        tell(rundir, step, "scalars", **scalars(step, loss=float(step)))
    broken = Ingest(attempt, rundir, fence=attempt.fence)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ingest, "_write_run", die)
        with pytest.raises(KeyboardInterrupt):
            broken.take()
    assert not RunEvent.objects.exists() and not MetricSeries.objects.exists()
    drain(attempt)
    drain(attempt)
    assert RunEvent.objects.count() == 20
    assert losses(run) == {step: float(step) for step in range(1, 21)}


def test_a_supervisor_that_was_replaced_writes_nothing(attempt: RunAttempt, rundir: RunDir) -> None:
    old = Ingest(attempt, rundir, fence=attempt.fence)
    tell(rundir, 1, "warning", message="one")
    RunAttempt.objects.filter(pk=attempt.pk).update(fence=attempt.fence + 1)
    with pytest.raises(StaleFence):
        old.take()
    assert not RunEvent.objects.exists()


def test_small_batches_are_the_same_as_one(
    run: PhaseRun, attempt: RunAttempt, rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "BATCH_BYTES", 400)
    for step in range(1, 60):
        tell(rundir, step, "scalars", **scalars(step, loss=1 / step))
    drain(attempt)
    assert losses(run) == {step: 1 / step for step in range(1, 60)}
    assert MetricSeries.objects.get().num_points == 59


def test_scalars_of_one_step_may_come_in_several_events(run: PhaseRun, attempt: RunAttempt, rundir: RunDir) -> None:
    """An evaluation tells of the step that was told already; only what is told of again is replaced."""
    for seq, values in enumerate([{"loss": 1.0}, {"loss": 2.0}, {"eval/accuracy": 0.5}], start=1):
        tell(rundir, seq, "scalars", **scalars(min(seq, 2), **values))
    tell(rundir, 4, "scalars", **scalars(1, loss=9.0))
    drain(attempt)
    assert losses(run) == {1: 9.0}
    (accuracy,) = run_metrics(run, names=["eval/accuracy"])["series"]
    assert (accuracy["x"], accuracy["last"]) == ([2], [0.5])


def test_the_next_attempt_goes_on_from_its_checkpoint(run: PhaseRun, attempt: RunAttempt, rundir: RunDir, node: Node) -> None:
    for step in range(1, 11):
        tell(rundir, step, "scalars", **scalars(step, loss=float(step)))
    drain(attempt)
    RunAttempt.objects.filter(pk=attempt.pk).update(state="failed")
    second = make_attempt(run, node, number=2)
    for seq, step in enumerate(range(7, 13), start=1):
        tell(rundir_of(second), seq, "scalars", **scalars(step, loss=-float(step)))
    drain(second)
    truth = {step: float(step) if step < 7 else -float(step) for step in range(1, 13)}
    assert losses(run) == truth
    run.refresh_from_db()
    assert run.device_seconds == 10 / 2 + 12 / 2
    ids = [event["id"] for event in run_events(run)]
    assert ids == sorted(ids) and len(ids) == 16


def test_removed_checkpoints_are_marked(attempt: RunAttempt, rundir: RunDir) -> None:
    tell(rundir, 1, "checkpoint", step=3, path="p", metrics={}, size_bytes=1, sha256="d" * 64, is_final=False)
    tell(rundir, 2, "checkpoint_removed", step=3)
    drain(attempt)
    assert Checkpoint.objects.get().removed_at is not None
