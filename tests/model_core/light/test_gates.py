"""A gate compares what it says with what was measured, and refuses at the field what it could not decide."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.config import GateConfig, RunConfig
from model_core.config.gate import benchmark_of, names_of, range_of, split
from model_core.errors import ConfigError
from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.statistics import Z95, mean_interval, wilson
from model_core.gates import Streak, judge
from model_core.rewards import REWARDS

DURING = {"held_out": {"every_steps": 2}}
UNIT = st.floats(0, 1)


def gate(metric: str, threshold: float = 0.5, **values: Any) -> GateConfig:
    return GateConfig(metric=metric, threshold=threshold, **values)


def measured(name: str, value: float, low: float, high: float, **values: Any) -> dict[str, Any]:
    return {"measures": {name: {"value": value, "stderr": 0.01, "low": low, "high": high, "num": 128, **values}}}


@given(numbers=st.tuples(UNIT, UNIT, UNIT), threshold=UNIT)
def test_a_bound_is_never_kinder_than_the_mean(numbers: tuple[float, float, float], threshold: float) -> None:
    """Whatever passes by the cautious end of the interval passes by the mean, in both directions."""
    low, value, high = sorted(numbers)
    told = measured("format", value, low, high)
    for direction, bound in (("at_least", "low"), ("at_most", "high")):
        strict = judge(gate(f"format_{bound}", threshold, direction=direction), told)
        plain = judge(gate("format", threshold, direction=direction), told)
        assert not strict.passed or plain.passed
        assert strict.compared == (low if bound == "low" else high) and plain.compared == value
        opposite = judge(gate("format", threshold, direction="at_most" if direction == "at_least" else "at_least"), told)
        assert plain.passed or opposite.passed


def test_everything_that_was_measured_is_kept_and_said() -> None:
    judged = judge(gate("length_high", 30, direction="at_most"), measured("length", 25.5, 24.25, 26.75))
    assert judged.stored() == {
        "metric": "length", "bound": "high", "direction": "at_most", "threshold": 30.0, "value": 25.5, "compared": 26.75,
        "stderr": 0.01, "low": 24.25, "high": 26.75, "num": 128, "passed": True,
    }  # fmt: skip
    assert judged.sentence() == (
        "length, upper bound 26.750 (mean 25.500, standard error 0.010, 95 % interval 24.250 to 26.750) on 128 held-out problems")
    of_benchmark = judge(gate("math500_low"), measured("math500", 0.6, 0.55, 0.65)).sentence()
    assert of_benchmark.startswith("MATH-500 accuracy, lower bound 0.550 (mean 0.600,") and of_benchmark.endswith(" on 128 problems")


@pytest.mark.parametrize("value", [None, True, "0.9", math.nan, math.inf])
@pytest.mark.parametrize("direction", ["at_least", "at_most"])
def test_what_was_not_measured_passes_in_no_direction(value: Any, direction: Any) -> None:
    assert judge(gate("format", direction=direction), measured("format", value, 0.1, 0.2)).passed is None
    assert judge(gate("format", direction=direction), {"components": {"format": value}}).passed is None
    assert judge(gate("format", direction=direction), {}).passed is None


@pytest.mark.parametrize("name", ["quality", "accuracy", "length", "truncated", "efficiency", "gsm8k", "math500", "custom"])
@pytest.mark.parametrize(("bound", "direction"), [("", "at_least"), ("_low", "at_least"), ("", "at_most"), ("_high", "at_most")])
def test_every_metric_of_the_phase_and_every_benchmark_can_be_a_gate(name: str, bound: str, direction: str) -> None:
    config = RunConfig.parse({"phase": "cold_start", "gate": {
        "metric": name + bound, "threshold": 0.5, "direction": direction, "stop_early": 0}})
    assert split(config.gate.metric) == (name, bound.removeprefix("_"))
    assert (benchmark_of(config) == name) == (name in BENCHMARKS.names())


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"gate": {"metric": "luck", "threshold": 0.5}}, "gate.metric"),
        ({"gate": {"metric": "format", "threshold": 0.5}}, "gate.metric"),  # no part of the article's reward
        ({"gate": {"metric": "luck_low", "threshold": 0.5}}, "gate.metric"),
        ({"gate": {"metric": "quality"}}, "gate.threshold"),
        ({"gate": {"metric": "quality", "threshold": 1.01}}, "gate.threshold"),
        ({"gate": {"metric": "quality", "threshold": -0.01}}, "gate.threshold"),
        ({"gate": {"metric": "length", "threshold": 65}}, "gate.threshold"),
        ({"gate": {"metric": "gsm8k", "threshold": 80}}, "gate.threshold"),
        ({"gate": {"metric": "loss", "threshold": -0.1, "direction": "at_most"}}, "gate.threshold"),
        ({"gate": {"metric": "loss", "threshold": 0.5}}, "gate.direction"),
        ({"gate": {"metric": "loss_low", "threshold": 0.5, "direction": "at_most"}}, "gate.direction"),
        ({"gate": {"metric": "quality_high", "threshold": 0.5}}, "gate.direction"),
        ({"gate": {"metric": "length_low", "threshold": 9, "direction": "at_most"}}, "gate.direction"),
        ({"gate": {"metric": "quality", "threshold": 0.5, "direction": "about"}}, "gate.direction"),
        ({"gate": {"stop_early": 2}, **DURING}, "gate.stop_early"),
        ({"gate": {"metric": "quality", "threshold": 0.5, "stop_early": 2}}, "gate.stop_early"),
        ({"gate": {"metric": "gsm8k", "threshold": 0.5, "stop_early": 2}, **DURING}, "gate.stop_early"),
        ({"budget": {"dollars": 3.0}}, "budget.dollars_per_device_hour"),
    ],
)  # fmt: skip
def test_a_gate_that_cannot_be_decided_is_refused_at_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.parse({"phase": "cold_start", **values})
    assert refused.value.field == field


def test_an_unknown_metric_is_told_what_there_is() -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.parse({"phase": "cold_start", "gate": {"metric": "luck", "threshold": 0.5}})
    for name in ("quality", "accuracy", "loss", "length", "truncated", "efficiency", *BENCHMARKS.names()):
        assert name in refused.value.message


def test_the_range_of_quality_follows_the_weights() -> None:
    config = RunConfig.parse({"phase": "cold_start", "reward": {"weights": {"solution_accuracy": 2.0, "length": 0.5}}})
    assert range_of(config, "quality") == (-0.5, 2.0)
    assert set(names_of(config)) == {"quality", "accuracy", "loss", "length", "truncated", "solution_accuracy"}
    assert all(REWARDS.get(name).bounds[0] < REWARDS.get(name).bounds[1] for name in REWARDS.names())


def test_only_measurements_in_a_row_end_a_phase_early() -> None:
    """The mean is above the threshold from the first one on; what counts is the lower bound, whatever the gate compares."""
    for metric in ("quality", "quality_low"):
        streak = Streak(gate(metric, 0.8, stop_early=2))
        said = [streak.add(measured("quality", 0.9, low, 0.95)) for low in (0.79, 0.80, 0.75, 0.81, 0.85)]
        assert said[:4] == [""] * 4
        assert said[4] == ("The gate is safely passed: quality, lower bound was at or above 0.8 at 2 measurements in a row, the last "
                           "one 0.850.")


def test_at_most_ends_early_by_the_upper_bound_and_what_was_not_measured_breaks_the_row() -> None:
    streak = Streak(gate("length", 30, direction="at_most", stop_early=2))
    row = [measured("length", 25, 20, 29), {}, measured("length", 25, 20, 31), measured("length", 25, 20, 30)]
    assert [streak.add(one) for one in row] == [""] * 4 and "at or below 30" in streak.add(measured("length", 20, 19, 21))


def test_a_loss_is_the_better_the_lower_and_has_no_upper_end() -> None:
    """Of a loss the upper bound is the cautious one: it decides what ends early, and a loss above 1 is no wrong threshold."""
    config = RunConfig.parse({"phase": "cold_start", "gate": {
        "metric": "loss", "threshold": 3.5, "direction": "at_most", "stop_early": 1}, **DURING})
    assert range_of(config, "loss") == (0.0, math.inf)
    streak = Streak(config.gate)
    assert streak.add(measured("loss", 3.4, 3.2, 3.6)) == ""
    assert "held-out loss, upper bound was at or below 3.5 at one measurement" in streak.add(measured("loss", 3.2, 3.0, 3.4))
    judged = judge(gate("loss_high", 3.5, direction="at_most"), measured("loss", 3.2, 3.0, 3.4))
    assert judged.passed and judged.sentence() == (
        "held-out loss, upper bound 3.400 (mean 3.200, standard error 0.010, 95 % interval 3.000 to 3.400) on 128 demonstrations")
    assert not judge(gate("loss_high", 3.5, direction="at_most"), measured("loss", 3.4, 3.2, 3.6)).passed


def test_by_default_nothing_ends_early() -> None:
    assert RunConfig.parse({"phase": "cold_start", "gate": {"metric": "quality", "threshold": 0.0}}).gate.stop_early == 0
    streak = Streak(gate("quality", 0.0))
    assert [streak.add(measured("quality", 1, 1, 1)) for _ in range(9)] == [""] * 9


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60))
def test_the_interval_of_shares_is_wilsons(values: list[float]) -> None:
    mean, _error, low, high = mean_interval(values)
    assert (low, high) == wilson(sum(values), len(values)) and low <= mean <= high and low < high


@given(st.lists(st.floats(2, 50), min_size=2, max_size=60), st.floats(0.5, 4), st.floats(1, 20))
def test_the_interval_of_other_numbers_moves_and_grows_with_them(values: list[float], factor: float, shift: float) -> None:
    mean, error, low, high = mean_interval(values)
    assert high - mean == pytest.approx(Z95 * error, abs=1e-9) and low == pytest.approx(2 * mean - high, abs=1e-9)
    moved = mean_interval([factor * value + shift for value in values])
    assert moved == pytest.approx((factor * mean + shift, factor * error, factor * low + shift, factor * high + shift), abs=1e-6)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert mean_interval([3.0])[0] == 3.0 and all(map(math.isnan, mean_interval([3.0])[1:]))
    assert all(map(math.isnan, mean_interval([])))
