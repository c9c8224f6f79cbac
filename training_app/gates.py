"""The gate of a phase: a metric of result.json against a threshold, decided once, by measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from training_app.models import PhaseRun
from training_app.states import GateVerdict

WORDS = {"quality_low": "quality, lower bound", "accuracy_low": "accuracy, lower bound"}


@dataclass(frozen=True)
class Decision:
    """What the gate says and the sentence that is kept."""

    verdict: GateVerdict
    reason: str


def gate_decide(run: PhaseRun, result: dict[str, Any]) -> Decision:
    """Compares the run's metric. What was not measured does not pass."""
    if not run.gate_metric or run.gate_threshold is None:
        return Decision(GateVerdict.NONE, "It ended well; it has no gate.")
    words = WORDS.get(run.gate_metric, run.gate_metric.replace("_", " "))
    value = result.get(run.gate_metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return Decision(GateVerdict.HELD, f"The gate compares {words}, which this run did not measure.")
    compared = f"{words} {value:.3f}{_basis(run.gate_metric, result)}"
    if value >= run.gate_threshold:
        return Decision(GateVerdict.PASSED, f"The gate passed: {compared}, threshold {run.gate_threshold:g}.")
    return Decision(GateVerdict.HELD, f"Held at the gate: {compared} is below the threshold {run.gate_threshold:g}.")


def _basis(metric: str, result: dict[str, Any]) -> str:
    """On what the number rests: the mean that it bounds and how many problems were asked, where result.json says so."""
    mean, num = result.get(metric.removesuffix("_low")), result.get("num_problems")
    bounds = f" (mean {mean:.3f})" if metric.endswith("_low") and isinstance(mean, int | float) else ""
    return f"{bounds} on {num} held-out problems" if num else bounds
