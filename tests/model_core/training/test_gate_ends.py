"""A phase that ends early at its gate, one that a benchmark decides, and budgets in every unit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.config import BudgetConfig
from model_core.errors import DataError
from model_core.gates import judge
from model_core.training import frame as frames
from model_core.training.budget import Spent, burn, fraction_left, used_up
from model_core.training.frame import Outcome
from tests.model_core.training.in_process import Attempt, Run
from tests.model_core.training.test_frame_ends import idle

UNITS = ("device_seconds", "wall_seconds", "dollars", "tokens")


def early(attempt: Attempt, lows: Sequence[float], monkeypatch: pytest.MonkeyPatch, **gate: Any) -> Run:
    """A run of 12 steps, measured after every second, whose quality has these lower bounds; 0.1 at the end."""
    bounds = iter(lows)

    def measure(self: Any, when: str) -> dict[str, Any]:
        low = next(bounds, 0.1) if when == "during" else 0.1
        measures = {"quality": {"value": low + 0.05, "stderr": 0.02, "low": low, "high": low + 0.1, "num": 4}}
        told = {"accuracy": None, "quality": low + 0.05, "quality_low": low, "num_problems": 4, "measures": measures}
        self.reporter.emit("evaluation", step=self.counters.step, when=when, **told)
        return told

    monkeypatch.setattr(frames.Frame, "measure", measure)
    return attempt(phase_config={"steps": 12}, held_out={"every_steps": 2}, budget={"tokens": 100},
                   gate={"metric": "quality", "threshold": 0.5, "stop_early": 2, **gate})


def test_it_ends_once_the_bound_was_above_the_threshold_in_a_row(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    run = early(attempt, [0.6, 0.4, 0.5, 0.7, 0.9], monkeypatch)
    result = run.frame.run(idle(run))
    reason = ("The gate is safely passed: quality, lower bound was at or above 0.5 at 2 measurements in a row, the last one 0.700. "
              "4 of 12 steps and 60% of the budget are left.")
    assert (result["status"], result["ended_by"], result["steps"], result["reason"]) == ("succeeded", "gate", 8, reason)
    assert run.told("stopping") == [{"reason": reason, "step": 8}]
    assert [(told["when"], told["step"]) for told in run.told("evaluation")] == [
        ("before", 0), ("during", 2), ("during", 4), ("during", 6), ("during", 8), ("after", 8)]
    # The gate itself is decided on the last measurement, and that one says no.
    assert result["measures"]["quality"]["low"] == 0.1 and not judge(run.config.gate, result).passed
    assert [told["is_final"] for told in run.told("checkpoint")] == [False, True]


@pytest.mark.parametrize("gate", [{"stop_early": 0}, {"stop_early": 7}, {"threshold": 0.95}])
def test_without_enough_of_them_all_steps_are_made(
    gate: dict[str, Any], attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = early(attempt, [0.9] * 9, monkeypatch, **gate)
    result = run.frame.run(idle(run))
    assert (result["ended_by"], result["steps"]) == ("steps", 12)


def test_a_row_that_a_stop_broke_begins_anew(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    first = early(attempt, [0.9], monkeypatch)

    def step(number: int) -> Outcome:
        if number == 2:
            first.rundir.ask_to_stop("wait")
        return Outcome(5, 0.5)

    assert first.frame.run(step)["steps"] == 3
    second = attempt("second", resume_from=first.rundir.checkpoint(3), **{
        name: getattr(first.config, name).model_dump() for name in ("held_out", "budget", "gate")}, phase_config={"steps": 12})
    monkeypatch.setattr(frames.Frame, "measure", lambda self, when: {
        "measures": {"quality": {"value": 0.9, "stderr": 0.0, "low": 0.9, "high": 0.9, "num": 4}}})
    result = second.frame.run(idle(second))
    assert (result["ended_by"], result["steps"]) == ("gate", 6)  # measured after steps 4 and 6


def write_benchmark(directory: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = directory / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PROBLEMS = [{"question": f"{a}+2=", "answer": f"so it is\n#### {a + 2}"} for a in range(3)]
GATE = {"metric": "gsm8k_low", "threshold": 0.5}
ASKED = {"num_samples": 2, "max_new_tokens": 4, "temperature": 1.0}


def test_a_benchmark_is_asked_after_the_last_step_and_told(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.model_core.training.in_process.RunPaths", _with(write_benchmark(tmp_path, PROBLEMS)))
    run = attempt(phase_config={"steps": 2}, gate=GATE, benchmark={**ASKED, "num_problems": 2})
    result = run.frame.run(idle(run))
    (told,) = run.told("benchmark")
    assert told["step"] == 2 and told["name"] == "gsm8k" and (told["num_problems"], told["num_samples"]) == (2, 4)
    assert told["accuracy"] is not None and told["low"] <= told["accuracy"] <= told["high"]
    assert result["measures"]["gsm8k"] == {
        "value": told["accuracy"], "stderr": told["stderr"], "low": told["low"], "high": told["high"], "num": 2}
    judged = judge(run.config.gate, result)
    assert judged.num == 2 and judged.compared == told["low"] and judged.passed is (told["low"] >= 0.5)
    assert {"quality", "accuracy", "length", "truncated", "efficiency"} < set(result["measures"])


@pytest.mark.parametrize("rows", [None, [], [{"question": "1+1="}], [{"question": "1+1=", "answer": "2"}]])
def test_a_benchmark_without_its_file_costs_no_training(
    rows: list[dict[str, Any]] | None, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rows is not None:
        monkeypatch.setattr("tests.model_core.training.in_process.RunPaths", _with(write_benchmark(tmp_path, rows)))
    with pytest.raises(DataError):
        attempt(phase_config={"steps": 2}, gate=GATE)


def _with(path: Path) -> Any:
    from model_core.config import RunPaths

    return lambda **values: RunPaths(**values, benchmark=str(path))


def limits(**values: float) -> BudgetConfig:
    return BudgetConfig.parse({"dollars_per_device_hour": 3.6, **values})


@pytest.mark.parametrize(
    ("limit", "below", "words"),
    [
        ({"device_seconds": 100.0}, Spent(99.9, 2, 0), "100 of 100 device seconds"),
        ({"wall_seconds": 50.0}, Spent(99.9, 2, 0), "50 of 50 seconds"),
        ({"dollars": 0.1}, Spent(99.9, 2, 0), "0.10 of 0.10 dollars"),
        ({"tokens": 7}, Spent(1e9, 2, 6), "7 of 7 tokens"),
    ],
)
def test_every_unit_is_a_limit_that_is_met_and_not_passed(limit: dict[str, Any], below: Spent, words: str) -> None:
    budget, at = limits(**limit), Spent(100.0, 2, 7)
    assert not used_up(budget, below) and words in used_up(budget, at) and fraction_left(budget, at) == 0


@given(
    st.sets(st.sampled_from(UNITS), min_size=2), st.floats(1, 1e4), st.integers(1, 10**6), st.integers(1, 50), st.integers(0, 500)
)
def test_of_several_limits_the_nearest_is_told_and_each_besides(
    units: set[str], seconds: float, tokens: int, num_done: int, num_left: int
) -> None:
    """At an even rate the forecast is what would be used after the last step."""
    sizes = {"device_seconds": 5e3, "wall_seconds": 1e3, "dollars": 4.0, "tokens": 10**5}
    budget = limits(**{unit: sizes[unit] for unit in units})
    now = Spent(seconds * num_done, 4, tokens * num_done)
    told = burn(budget, at_first=Spent(0, 4, 0), now=now, num_done=num_done, num_left=num_left)
    total = num_done + num_left
    ends = Spent(seconds * total, 4, tokens * total)
    again = burn(budget, at_first=Spent(0, 4, 0), now=ends, num_done=total, num_left=0)
    for unit in units:
        assert told[f"budget/{unit}/forecast"] == pytest.approx(again[f"budget/{unit}/used"])
    assert told["budget/used_fraction"] == max(told[f"budget/{unit}/used"] for unit in units)
    assert told["budget/forecast_fraction"] == max(told[f"budget/{unit}/forecast"] for unit in units)
    assert bool(used_up(budget, now)) == (told["budget/used_fraction"] >= 1)


def test_one_limit_is_told_once() -> None:
    told = burn(limits(dollars=1.0), at_first=Spent(0, 1, 0), now=Spent(500, 1, 0), num_done=1, num_left=2)
    assert told == {"budget/used_fraction": pytest.approx(0.5), "budget/forecast_fraction": pytest.approx(1.5)}


def test_a_budget_in_dollars_ends_with_a_checkpoint_and_a_measurement(attempt: Attempt) -> None:
    run = attempt(phase_config={"steps": 9}, budget={"dollars": 0.05, "dollars_per_device_hour": 3.6})
    result = run.frame.run(idle(run, seconds=20.0))
    assert (result["status"], result["ended_by"], result["steps"]) == ("succeeded", "budget", 3)
    assert "dollars are used" in result["reason"] and run.told("evaluation")[-1]["when"] == "after"
    assert run.told("checkpoint")[-1]["is_final"]
