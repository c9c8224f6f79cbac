"""What the demo prints and writes, from runs as the API gives them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.progress import Progress

from r1platform.demo import follow, report


def a_run(**changes: Any) -> dict[str, Any]:
    result = {
        "accuracy": 0.98, "accuracy_before": 0.6, "quality": 0.93, "quality_low": 0.92, "quality_high": 0.94,
        "num_problems": 512, "seconds": 61.0, "tokens": 1234567, "device_seconds": 61.0,
    }  # fmt: skip
    run = {
        "phase": "reinforcement", "state": "succeeded", "result": result, "budget_device_seconds": 122.0,
        "gate_threshold": 0.85, "gate_verdict": "passed",
    }  # fmt: skip
    return run | changes


def test_row_has_the_keys_that_the_json_promises() -> None:
    row = report.phase_row(a_run())
    promised = {"phase", "accuracy", "accuracy_before", "quality", "quality_low", "threshold", "gate", "num_problems", "seconds"}
    assert promised <= set(row)
    assert row["budget_used_fraction"] == 0.5


def test_a_run_that_never_measured_gives_nulls_and_dashes() -> None:
    row = report.phase_row(a_run(result=None, gate_verdict="pending"))
    assert row["accuracy"] is None and row["budget_used_fraction"] is None
    out = io.StringIO()
    report.show_phases(Console(file=out, width=160), [row])
    assert "–" in out.getvalue() and "None" not in out.getvalue()


def test_table_says_what_was_measured() -> None:
    out = io.StringIO()
    report.show_phases(Console(file=out, width=200), [report.phase_row(a_run())])
    for word in ("60.0%", "98.0%", "512", "0.930", "0.920", "passed at 0.85", "1 234 567", "50.0%"):
        assert word in out.getvalue(), word


def test_bar_follows_progress_and_ends_with_the_run() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bar = progress.add_task("", total=1.0, name="x", text="")
    payload = {"stage": "updating", "step": 3, "total": 12, "fraction": 0.25, "remaining_seconds": 12.4}
    ended = follow.draw({"type": "event", "kind": "progress", "payload": payload}, progress, bar)
    assert not ended and progress.tasks[0].completed == 0.25
    assert progress.tasks[0].fields["text"] == "updating 3 of 12 · 12 s left"
    assert follow.draw({"type": "state", "state": "succeeded"}, progress, bar)
    assert progress.tasks[0].completed == 1.0


def test_a_failed_run_does_not_look_finished() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bar = progress.add_task("", total=1.0, name="x", text="")
    assert follow.draw({"type": "hello", "state": {"state": "failed"}}, progress, bar)
    assert progress.tasks[0].completed == 0
