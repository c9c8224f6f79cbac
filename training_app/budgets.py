"""What a run may use and has used over all its attempts, in each unit: device seconds, seconds on the clock, dollars, tokens.

The trainer watches the limits that it is given; here is what is left of them for the next attempt, and what the pages show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from model_core.rundir import used_until
from training_app.ingest import device_seconds_of, tokens_of
from training_app.models import PhaseRun, RunAttempt

UNITS = ("device_seconds", "wall_seconds", "dollars", "tokens")


@dataclass(frozen=True)
class Used:
    """One limit of a run. `forecast` is the fraction that its last step would bring it to; None where it is not known."""

    unit: str
    used: float
    limit: float
    forecast: float | None

    @property
    def fraction(self) -> float:
        return self.used / self.limit


def limits_of(run: PhaseRun) -> dict[str, float]:
    """The limits that a run has, in the order of `UNITS`."""
    stored = {**run.config.get("budget", {})}
    stored["device_seconds"] = run.budget_device_seconds or stored.get("device_seconds")
    return {unit: float(stored[unit]) for unit in UNITS if stored.get(unit)}


def uses_of(run: PhaseRun) -> list[Used]:
    """Every limit with what is used of it, the one that is nearest to its end first; of a run's row alone, without a query."""
    limits, summary = limits_of(run), run.summary or {}
    used = _in_units(run, run.device_seconds, run.num_tokens)
    found = []
    for unit, limit in limits.items():
        forecast = summary.get("budget/forecast_fraction" if len(limits) == 1 else f"budget/{unit}/forecast")
        found.append(Used(unit, used[unit], limit, forecast if isinstance(forecast, int | float) else None))
    return sorted(found, key=lambda one: -max(one.fraction, one.forecast or 0.0))


def has_budget_left(run: PhaseRun, *, device_seconds: float) -> bool:
    """Whether another attempt from the beginning could make a step."""
    used = _in_units(run, device_seconds, tokens_of(run.attempts.all()))
    return all(used[unit] < limit for unit, limit in limits_of(run).items())


def budget_left(run: PhaseRun, before: QuerySet[RunAttempt], resume_from: str | None) -> dict[str, Any]:
    """The budget block for the next attempt: what the attempts `before` did not use.

    A trainer that resumes counts what was used up to its checkpoint by itself, so that much is added again; what an attempt that
    died had done since is lost, and used all the same.
    """
    budget = dict(run.config.get("budget", {}))
    used = _in_units(run, device_seconds_of(before), tokens_of(before))
    counted = _in_units(run, *used_until(resume_from)) if resume_from else dict.fromkeys(UNITS, 0.0)
    least = _in_units(run, 1.0, 1)
    for unit, limit in limits_of(run).items():
        left = max(limit - used[unit], least[unit]) + counted[unit]
        budget[unit] = round(left) if unit == "tokens" else left
    return budget


def _in_units(run: PhaseRun, device_seconds: float, tokens: int) -> dict[str, float]:
    price = run.config.get("budget", {}).get("dollars_per_device_hour") or 0.0
    return {
        "device_seconds": device_seconds, "wall_seconds": device_seconds / run.num_processes,
        "dollars": device_seconds * price / 3600, "tokens": float(tokens),
    }  # fmt: skip
