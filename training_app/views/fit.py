"""The fit check before a launch: what the pipeline will need, by the planner's formulas, against what is here.

Nothing is promised that was not measured: times come from budgets, or from the last launch of the same pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Min, Sum

from model_core.config import RunConfig
from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from model_core.planner import Memory, count_parameters, needed_bytes
from model_core.planner.run import shape_of, with_vocabulary
from r1platform.models import Device
from r1platform.selectors import device_counts
from r1platform.templatetags.r1 import as_bytes, percent
from training_app.models import DatasetVersion, PhaseRun, Pipeline, PipelinePhase
from training_app.scheduling import nodes_up
from training_app.states import RunState, VersionState

MOMENTS = {"backward": "the backward pass", "update": "the update", "sampling": "sampling"}
"""What the moments of the planner are called on the page."""


@dataclass(frozen=True)
class Check:
    """One line of the fit check."""

    label: str
    value: Any
    unit: str
    tone: str
    words: str


def fit_check(pipeline: Pipeline, phases: list[PipelinePhase]) -> list[Check]:
    """What the pipeline needs and whether it is here."""
    new = [phase for phase in phases if phase.starts_from_id is None]
    models = [check for phase in new for check in _model(phase, f" of {phase.name}" if len(new) > 1 else "")]
    return [*models, _data(phases), _devices(phases), _time(pipeline, phases)]


def _model(phase: PipelinePhase, of: str) -> list[Check]:
    """Parameters and memory of the new model that the phase starts."""
    try:
        config = _config(phase)
        needed = needed_bytes(config)
    except ModelCoreError as error:
        return [Check(f"Memory of a device{of}", None, "", "failed", error.message)]
    shape = shape_of(config)
    total, active = count_parameters(with_vocabulary(shape, config))
    words = f"{active:,} of them active for a token".replace(",", "\u202f")
    if not shape.vocab_size:
        words += f"; with a vocabulary of {config.tokenizer.vocab_size}, which the tokenizer may not reach"
    tone, memory_words = _fits(needed)
    return [
        Check(f"Parameters{of}", total, "count", "succeeded", words),
        Check(f"Memory of a device{of}", needed.peak.total, "bytes", tone, memory_words),
    ]


def _config(phase: PipelinePhase) -> RunConfig:
    """What the phase's run will be. Raises ModelCoreError for what cannot be one."""
    parallel = {**phase.config.get("parallel", {}), "num_processes": phase.num_processes}
    return RunConfig.parse({**phase.config, "phase": phase.phase, "parallel": parallel})


def _fits(needed: Memory) -> tuple[str, str]:
    """Tone and words of the memory that each device needs, against the smallest that is up."""
    parts = sorted(needed.peak.parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {as_bytes(number)}" for name, number in parts if number)
    words = f"at its peak, {MOMENTS[needed.peak.name]}: {listed}"
    devices = Device.objects.filter(node__in=nodes_up(), memory_bytes__gt=0)
    smallest = devices.aggregate(smallest=Min("memory_bytes"))["smallest"]
    if smallest is None:
        return "queued", f"{words}. No device that is up says how much it has"
    if needed.peak.total > smallest:
        remedy = "Choose a smaller model, or share it: more processes with ZeRO stage 3."
        return "failed", f"The smallest device that is up has {as_bytes(smallest)}; needed are, {words}. {remedy}"
    return "succeeded", f"{words}; the smallest device has {as_bytes(smallest)}"


def _data(phases: list[PipelinePhase]) -> Check:
    learning = [phase for phase in phases if PHASES.get(phase.phase).needs["dataset"]]
    without = [phase.name for phase in learning if phase.dataset_version_id is None]
    if without:
        return Check(
            "Data", None, "", "failed", f"{', '.join(without)} has no dataset version. Choose one in its settings."
        )
    versions = {phase.dataset_version for phase in phases if phase.dataset_version is not None}
    if (not_ready := _not_ready(versions)) is not None:
        return not_ready
    held_out = {version.num_held_out for version in versions}
    wanted = max((phase.config.get("held_out", {}).get("num_problems", 0) for phase in phases), default=0)
    if min(held_out, default=0) < wanted:
        words = f"{wanted} held-out problems are asked for: the gates are decided on fewer, with wider intervals."
        return Check("Data", min(held_out), "count", "waiting", words)
    return Check("Data", min(held_out), "count", "succeeded", "held-out problems, enough for every gate")


def _not_ready(versions: set[DatasetVersion]) -> Check | None:
    """What is said of the first version that nothing can be learnt from yet, or ever."""
    for version in sorted(versions, key=lambda version: version.pk):
        if version.state in {VersionState.FAILED, VersionState.STOPPED}:
            state = version.get_state_display().lower()
            return Check("Data", None, "", "failed", f"{version} is {state}. Choose another version in the phases.")
        if version.state != VersionState.READY:
            words = f"{version} is being prepared, {percent(version.progress, 0)}. A launch waits for it."
            return Check("Data", None, "", "waiting", words)
    return None


def _devices(phases: list[PipelinePhase]) -> Check:
    wanted = max((phase.num_processes for phase in phases), default=1)
    counts = device_counts()
    here, free = counts["total"], counts["total"] - counts["held"]
    if here < wanted:
        return Check(
            "Devices",
            wanted,
            "count",
            "failed",
            f"{here} are up. Lower the processes of the largest phase, or start another node.",
        )
    if free < wanted:
        return Check(
            "Devices", wanted, "count", "waiting", f"{free} of {here} are free now. The launch waits until enough are."
        )
    return Check("Devices", wanted, "count", "succeeded", f"{free} of {here} are free now")


def _time(pipeline: Pipeline, phases: list[PipelinePhase]) -> Check:
    done = PhaseRun.objects.filter(launch__pipeline=pipeline, state=RunState.SUCCEEDED)
    last = done.order_by("-launch_id").values_list("launch_id", flat=True).first()
    if last is not None:
        seconds = done.filter(launch_id=last).aggregate(total=Sum("device_seconds"))["total"] or 0.0
        return Check("Device time", seconds, "duration", "succeeded", "measured in the last launch")
    if pipeline.budget_device_seconds:
        return Check(
            "Device time",
            pipeline.budget_device_seconds,
            "duration",
            "succeeded",
            "at most: the budget. It was not launched yet, so nothing was measured",
        )
    steps = sum(int(phase.config.get("phase_config", {}).get("steps") or 0) for phase in phases)
    return Check("Device time", None, "", "queued", f"not known: no budget and no launch yet. Together {steps} steps")
