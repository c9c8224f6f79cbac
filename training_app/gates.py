"""The gate of a run: what its result holds against the threshold, decided once, by measurement; see `model_core.gates`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_core.config import GateConfig
from model_core.gates import SIGNS, judge, words_of
from training_app.models import PhaseRun, PipelinePhase
from training_app.states import GateVerdict

_SIDES = {"at_least": "below", "at_most": "above"}


@dataclass(frozen=True)
class Decision:
    """What the gate says, the sentence that is kept, and what it was decided on."""

    verdict: GateVerdict
    reason: str
    measured: dict[str, Any] | None = None


def gate_of(row: PhaseRun | PipelinePhase) -> GateConfig | None:
    """The gate of a run or of a phase of a plan; None when it has none."""
    if not row.gate_metric or row.gate_threshold is None:
        return None
    return GateConfig(metric=row.gate_metric, threshold=row.gate_threshold, direction=row.gate_direction)  # type: ignore[arg-type]


def gate_decide(run: PhaseRun, result: dict[str, Any]) -> Decision:
    """Compares the run's metric. What was not measured does not pass."""
    gate = gate_of(run)
    if gate is None:
        return Decision(GateVerdict.NONE, "It ended well; it has no gate.")
    judged = judge(gate, result)
    if judged.passed is None:
        return Decision(
            GateVerdict.HELD, f"The gate compares {judged.words}, which this run did not measure.", judged.stored()
        )
    threshold = f"threshold {gate.threshold:g}"
    if judged.passed:
        at_most = "at most " if gate.direction == "at_most" else ""
        return Decision(GateVerdict.PASSED, f"The gate passed: {judged.sentence()}, {at_most}{threshold}.", judged.stored())
    side = _SIDES[gate.direction]
    return Decision(GateVerdict.HELD, f"Held at the gate: {judged.sentence()} is {side} the {threshold}.", judged.stored())


def condition(gate: GateConfig) -> str:
    """What has to hold, in words and a sign: "quality, lower bound ≥ 0.85"."""
    return f"{words_of(gate.name, gate.bound)} {SIGNS[gate.direction]} {gate.threshold:g}"
