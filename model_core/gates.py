"""Deciding a gate: the metric of a measurement against the threshold, with what the number rests on. Imports without torch.

A mean is compared as it is; with a bound it is the end of the 95 % interval: the lower one for "at least", the upper one for "at
most". What was not measured does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from model_core.config.gate import LOSS, GateConfig
from model_core.evaluation.benchmarks import BENCHMARKS

SIGNS = {"at_least": "≥", "at_most": "≤"}
_BOUNDS = {"low": "lower bound", "high": "upper bound"}


@dataclass(frozen=True)
class Judged:
    """What was measured and what it is compared with; `passed` is None when it was not measured."""

    metric: str
    bound: str
    """"low", "high" or "" for the mean: which number `compared` is."""
    direction: str
    threshold: float
    value: float | None
    """The mean."""
    compared: float | None
    stderr: float | None
    low: float | None
    high: float | None
    num: int | None
    """Problems that the mean is over."""
    passed: bool | None

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @property
    def words(self) -> str:
        """The metric in words: "quality, lower bound"."""
        return words_of(self.metric, self.bound)

    def sentence(self) -> str:
        """What was compared, and on what the number rests: "quality, lower bound 0.812 (mean 0.850, …) on 512 problems"."""
        basis = [f"mean {self.value:.3f}"] if self.bound and self.value is not None else []
        basis += [f"standard error {self.stderr:.3f}"] if self.stderr is not None else []
        if self.low is not None and self.high is not None:
            basis.append(f"95 % interval {self.low:.3f} to {self.high:.3f}")
        rests = f" ({', '.join(basis)})" if basis else ""
        kind = "problems" if self.metric in BENCHMARKS.names() else "demonstrations" if self.metric == LOSS else "held-out problems"
        return f"{self.words} {self.compared:.3f}{rests}{f' on {self.num} {kind}' if self.num else ''}"


def words_of(metric: str, bound: str) -> str:
    """A metric in words, with which end of its interval is meant."""
    name = f"{BENCHMARKS.get(metric).title} accuracy" if metric in BENCHMARKS.names() else metric.replace("_", " ")
    name = "held-out loss" if metric == LOSS else name
    return f"{name}, {_BOUNDS[bound]}" if bound else name


def judge(gate: GateConfig, result: Mapping[str, Any]) -> Judged:
    """The gate on the content of result.json, or on an `evaluation` event. The gate has a threshold."""
    assert gate.threshold is not None
    found = measure_of(gate.name, result)
    compared = found[gate.bound or "value"]
    passed = None
    if compared is not None:
        passed = compared >= gate.threshold if gate.direction == "at_least" else compared <= gate.threshold
    return Judged(
        gate.name, gate.bound, gate.direction, gate.threshold, value=found["value"], compared=compared, stderr=found["stderr"],
        low=found["low"], high=found["high"], num=int(found["num"]) if found["num"] else None, passed=passed,
    )


def measure_of(name: str, result: Mapping[str, Any]) -> dict[str, float | None]:
    """Value, standard error, interval and number of problems of a metric; None where it was not measured."""
    told = (result.get("measures") or {}).get(name)
    if not isinstance(told, Mapping):
        told = {
            "value": result.get(name, (result.get("components") or {}).get(name)), "low": result.get(f"{name}_low"),
            "high": result.get(f"{name}_high"), "num": result.get("num_problems"),
        }
    return {key: _number(told.get(key)) for key in ("value", "stderr", "low", "high", "num")}


class Streak:
    """Counts measurements in a row at which the gate is safely passed: by the cautious end of the interval, whatever the gate
    compares. An attempt that goes on begins to count anew, which can only be later."""

    def __init__(self, gate: GateConfig) -> None:
        cautious = "low" if gate.direction == "at_least" else "high"
        self._wanted = gate.stop_early if gate.metric and gate.threshold is not None else 0
        self._gate = gate.model_copy(update={"metric": f"{gate.name}_{cautious}"})
        self._num = 0

    def add(self, measured: Mapping[str, Any] | None) -> str:
        """Takes in one measurement; the sentence that says why the phase may end, once it may."""
        if not self._wanted or measured is None:
            return ""
        judged = judge(self._gate, measured)
        self._num = self._num + 1 if judged.passed else 0
        if self._num < self._wanted:
            return ""
        sign = "at or above" if judged.direction == "at_least" else "at or below"
        times = f"{self._num} measurements in a row" if self._num > 1 else "one measurement"
        return (f"The gate is safely passed: {judged.words} was {sign} {judged.threshold:g} at {times}, the last one "
                f"{judged.compared:.3f}.")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
