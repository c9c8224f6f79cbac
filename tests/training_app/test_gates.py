"""The sentence of a gate says what was compared and on what it rests."""

from __future__ import annotations

from typing import Any

import pytest

from training_app.gates import gate_decide
from training_app.models import PhaseRun
from training_app.states import GateVerdict

RESULT: dict[str, Any] = {"quality": 0.85, "quality_low": 0.812, "accuracy": 0.9, "num_problems": 512}


def decided(metric: str, threshold: float, result: dict[str, Any]) -> tuple[str, str]:
    decision = gate_decide(PhaseRun(gate_metric=metric, gate_threshold=threshold), result)
    return decision.verdict, decision.reason


def test_a_bound_is_said_with_its_mean_and_the_number_of_problems() -> None:
    verdict, reason = decided("quality_low", 0.85, RESULT)
    assert verdict == GateVerdict.HELD
    assert "quality, lower bound 0.812 (mean 0.850) on 512 held-out problems is below the threshold 0.85" in reason


def test_a_mean_is_not_said_twice_and_the_threshold_itself_passes() -> None:
    assert decided("accuracy", 0.9, RESULT) == (
        GateVerdict.PASSED, "The gate passed: accuracy 0.900 on 512 held-out problems, threshold 0.9."
    )  # fmt: skip


@pytest.mark.parametrize("value", [None, True, "0.9", float("nan"), float("inf")])
def test_what_was_not_measured_does_not_pass(value: Any) -> None:
    verdict, reason = decided("quality_low", 0.0, {**RESULT, "quality_low": value})
    assert verdict == GateVerdict.HELD and "did not measure" in reason


def test_all_that_was_measured_is_said_and_kept() -> None:
    measures = {"length": {"value": 25.5, "stderr": 0.25, "low": 25.0, "high": 26.0, "num": 128}}
    run = PhaseRun(gate_metric="length_high", gate_threshold=25.75, gate_direction="at_most")
    decision = gate_decide(run, {"measures": measures})
    assert decision.verdict == GateVerdict.HELD and decision.reason == (
        "Held at the gate: length, upper bound 26.000 (mean 25.500, standard error 0.250, 95 % interval 25.000 to 26.000) on 128 "
        "held-out problems is above the threshold 25.75."
    )
    assert decision.measured is not None and decision.measured["compared"] == 26.0 and decision.measured["passed"] is False
    run.gate_threshold = 26.0
    passed = gate_decide(run, {"measures": measures})
    assert passed.verdict == GateVerdict.PASSED and passed.reason.endswith("problems, at most threshold 26.")


def test_a_benchmark_decides_by_its_own_problems() -> None:
    measures = {"gsm8k": {"value": 0.5, "stderr": 0.05, "low": 0.4, "high": 0.6, "num": 100}}
    decision = gate_decide(PhaseRun(gate_metric="gsm8k_low", gate_threshold=0.3), {"measures": measures, "num_problems": 512})
    assert decision.verdict == GateVerdict.PASSED
    assert "GSM8K accuracy, lower bound 0.400" in decision.reason and "on 100 problems" in decision.reason


def test_a_number_alone_is_enough() -> None:
    assert decided("quality_low", 0.5, {"quality_low": 0.6})[0] == GateVerdict.PASSED
