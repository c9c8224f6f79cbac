"""What a rule of an alert makes of one event of a run. Pure: no query, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from r1platform.templatetags.r1 import duration, number
from training_app.models import AlertKind, AlertRule, PhaseRun, RunEvent


@dataclass(frozen=True)
class Found:
    """What an event means for a rule."""

    memo: int
    """What the rule is to remember: measurements in a row, or the attempt that it has called for."""
    message: str = ""
    """The sentence to call people with."""
    over: str = ""
    """The sentence by which an open alert ends."""
    step: int | None = None


def looks_at(rule: AlertRule, run: PhaseRun) -> bool:
    """Whether a rule of the run's project is about this run."""
    return rule.run_id in {None, run.pk} and rule.phase in {"", run.phase}


def judged(rule: AlertRule, event: RunEvent, memo: int) -> Found | None:
    """What `event` means when the rule remembers `memo`, 0 at first; None when it means nothing to it."""
    match rule.kind, event.kind:
        case AlertKind.SIGN, "warning":
            return _sign(rule, event.payload)
        case AlertKind.NONFINITE, "scalars":
            return _not_finite(rule, event, memo)
        case AlertKind.ABOVE | AlertKind.BELOW, "scalars":
            return _compared(rule, event.payload, memo)
    return None


def condition(rule: AlertRule) -> str:
    """The rule as a short sentence: "kl above 0.5, 3 measurements in a row"."""
    match rule.kind:
        case AlertKind.NONFINITE:
            return f"{rule.metric or 'any metric'} is NaN or infinite"
        case AlertKind.ABOVE | AlertKind.BELOW:
            in_a_row = f", {rule.steps} measurements in a row" if rule.steps > 1 else ""
            return f"{rule.metric} {rule.kind} {number(rule.threshold)}{in_a_row}"
        case AlertKind.SIGN:
            return f"the run warns of {rule.sign.replace('_', ' ')}" if rule.sign else "the run warns that its reward may be gamed"
        case AlertKind.STALL:
            return f"nothing is heard for {duration(rule.seconds)} while it trains"
        case AlertKind.MONEY:
            return f"a key has spent {number(rule.threshold)} % of its dollars a month"
        case AlertKind.DONE:
            return "a run is done, well or badly"
        case _:
            return "a run fails, is lost or is held at its gate"


def _sign(rule: AlertRule, payload: dict[str, Any]) -> Found | None:
    sign = payload.get("sign")
    if not sign or rule.sign not in {"", sign}:
        return None
    return Found(memo=0, message=str(payload.get("message", "")))


def _not_finite(rule: AlertRule, event: RunEvent, memo: int) -> Found | None:
    """Once an attempt: a number that stays NaN calls nobody twice."""
    values = event.payload.get("values", {})
    bad = {name: value for name, value in values.items() if isinstance(value, str) and rule.metric in {"", name}}
    if not bad or memo == event.attempt_id:
        return None
    name, value = next(iter(bad.items()))
    others = f", and {len(bad) - 1} other metrics are not finite" if len(bad) > 1 else ""
    step = event.payload["step"]
    return Found(memo=event.attempt_id, message=f"{name} is {value} at step {step}{others}.", step=step)


def _compared(rule: AlertRule, payload: dict[str, Any], memo: int) -> Found | None:
    value = _as_number(payload.get("values", {}).get(rule.metric))
    if value is None or rule.threshold is None:
        return None
    step, said = payload["step"], f"{rule.metric} is {number(value)} at step {payload['step']}"
    holds = value > rule.threshold if rule.kind == AlertKind.ABOVE else value < rule.threshold
    if not holds:
        return Found(memo=0, over=f"{said}.", step=step)
    if memo + 1 != rule.steps:  # not yet, or told already
        return Found(memo=memo + 1)
    in_a_row = f" for {rule.steps} measurements in a row" if rule.steps > 1 else ""
    return Found(memo=memo + 1, message=f"{said}, {rule.kind} {number(rule.threshold)}{in_a_row}.", step=step)


def _as_number(value: Any) -> float | None:
    """What can be compared: an infinity can, NaN cannot."""
    if isinstance(value, str) and value in {"inf", "-inf"}:
        return float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
