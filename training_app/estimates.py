"""What a plan will take, before it is launched: device-time, time on the clock and dollars of each phase, with the formula.

Only what was measured counts: a step of the same phase, model and work in a run of this project. A phase that was never run so is
not guessed; its share of the budget is then the most that it can take.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from model_core.planner.cost import price_of_hours
from r1platform.templatetags.r1 import duration
from training_app.models import PhaseRun, Pipeline, PipelinePhase
from training_app.states import RunState

_NOT_WORK = frozenset({"steps", "warmup_steps", "checkpoint_every", "num_chains"})
"""Whole numbers of a phase's settings that say how many steps there are, not how large one is."""
MAX_LOOKED_AT = 50


@dataclass(frozen=True)
class Estimate:
    """What one phase takes. `device_seconds` None: it was not measured. `limit` is its share of the budget in device-seconds."""

    phase: str
    num_processes: int
    steps: int
    device_seconds: float | None
    step_seconds: float | None
    limit: float | None
    formula: str

    @property
    def expected(self) -> float | None:
        """What it will take: no more than its share."""
        known = [value for value in (self.device_seconds, self.limit) if value is not None]
        return min(known) if known else None

    @property
    def fix(self) -> str:
        """What to change when its share ends it before its steps are done; empty when it does not."""
        if self.device_seconds is None or self.step_seconds is None or self.limit is None or self.device_seconds <= self.limit:
            return ""
        done = int(self.limit / self.step_seconds)
        more = self.device_seconds / self.limit
        has = f"{self.phase} needs {duration(self.device_seconds)} and has {duration(self.limit)}"
        ends = f"it ends at about step {done} of {self.steps}"
        return f"{has}: {ends}. Give it {more:.2g} times its share, or lower its steps to {done}."


def estimates(pipeline: Pipeline, phases: Iterable[PipelinePhase]) -> list[Estimate]:
    """One of each phase, in order; two queries for all of them."""
    rows = list(phases)
    kinds = {phase.phase for phase in rows}
    runs = PhaseRun.objects.filter(project=pipeline.project_id, state=RunState.SUCCEEDED, phase__in=kinds, device_seconds__gt=0)
    names = ("phase", "config", "progress", "device_seconds", "num_processes")
    done = list(runs.only(*names).order_by("-pk")[:MAX_LOOKED_AT])
    return [_estimate(pipeline, phase, done) for phase in rows]


def dollars_of(device_seconds: float, price: float) -> float:
    """At `price` dollars a device-hour."""
    return price_of_hours(device_seconds / 3600, price)


def limit_of(pipeline: Pipeline) -> float | None:
    """The device-seconds that the budgets in device-time and in dollars allow; None without one."""
    limits = [pipeline.budget_device_seconds]
    if pipeline.budget_dollars and pipeline.dollars_per_device_hour:
        limits.append(pipeline.budget_dollars / pipeline.dollars_per_device_hour * 3600)
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def _estimate(pipeline: Pipeline, phase: PipelinePhase, done: list[PhaseRun]) -> Estimate:
    steps = int(phase.config.get("phase_config", {}).get("steps") or 0)
    whole = limit_of(pipeline)
    limit = whole * phase.budget_fraction if whole else None
    like = next((run for run in done if _work(run.phase, run.config, run.num_processes) == _work_of(phase) and _steps(run)), None)
    if like is None or not steps:
        return Estimate(phase.name, phase.num_processes, steps, None, None, limit, "")
    step = like.device_seconds / _steps(like)
    formula = (f"{steps} steps × {step:.3g} device-seconds = {duration(steps * step)}; a step as in run {like.pk}: "
               f"{duration(like.device_seconds)} over {_steps(like)} steps, sampling and measuring in it")  # fmt: skip
    return Estimate(phase.name, phase.num_processes, steps, steps * step, step, limit, formula)


def _steps(run: PhaseRun) -> int:
    value = (run.progress or {}).get("step")
    return int(value) if isinstance(value, int | float) else 0


def _work_of(phase: PipelinePhase) -> Any:
    return _work(phase.phase, phase.config, phase.num_processes)


def _work(kind: str, config: dict[str, Any], num_processes: int) -> Any:
    """What makes a step of one phase as long as that of another."""
    sizes = {
        name: value for name, value in config.get("phase_config", {}).items() if isinstance(value, int) and name not in _NOT_WORK
    }
    return kind, num_processes, config.get("model"), config.get("precision"), sizes
