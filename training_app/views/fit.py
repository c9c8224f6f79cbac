"""The fit check before a launch: what the pipeline will need, by the planner's formulas, against what is here.

Nothing is promised that was not measured: times come from steps of runs of the same work, or from budgets. Each line has its
formula, and what to change when it does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Min

from model_core.config import RunConfig
from model_core.errors import ModelCoreError
from model_core.phases import PHASES
from model_core.planner import Memory, count_parameters, needed_bytes
from model_core.planner.devices import Device as Hardware
from model_core.planner.report import layout_words
from model_core.planner.run import shape_of, with_vocabulary, work_of
from model_core.planner.search import smallest_layout
from r1platform.models import Device
from r1platform.selectors import device_counts
from r1platform.templatetags.r1 import as_bytes, duration, percent
from training_app.estimates import Estimate, dollars_of, estimates
from training_app.models import DatasetVersion, Pipeline, PipelinePhase
from training_app.scheduling import nodes_up
from training_app.selectors import phase_shape
from training_app.states import VersionState

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
    formula: str = ""


def fit_check(pipeline: Pipeline, phases: list[PipelinePhase]) -> list[Check]:
    """What the pipeline needs and whether it is here."""
    new = [phase for phase in phases if phase.starts_from_id is None and phase.from_checkpoint_id is None]
    models = [check for phase in new for check in _model(phase, f" of {phase.name}" if len(new) > 1 else "")]
    found = estimates(pipeline, phases)
    last = [_time(pipeline, found), *_clock(pipeline, found), *_dollars(pipeline, found)]
    return [*models, *_largest(phases, new), _data(phases), _devices(phases), *last]


def _largest(phases: list[PipelinePhase], new: list[PipelinePhase]) -> list[Check]:
    """The phase that needs most memory, when it is one that goes on from another: it samples, or has a reference beside it."""
    needs: list[tuple[int, PipelinePhase, Memory]] = []
    for phase in phases:
        try:
            config, shape = _config(phase), phase_shape(phase)
            needs.append(((needed := needed_bytes(config, shape)).peak.total, phase, needed))
        except ModelCoreError as error:
            if phase not in new:
                return [Check(f"Memory of {phase.name}", None, "", "failed", error.message)]
    if not needs:
        return []
    _total, phase, needed = max(needs, key=lambda one: one[0])
    if phase in new:
        return []
    tone, words = _fits(needed, phase)
    return [Check(f"Largest phase, {phase.name}", needed.peak.total, "bytes", tone, words, _memory_formula(needed))]


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
    tone, memory_words = _fits(needed, phase)
    return [
        Check(f"Parameters{of}", total, "count", "succeeded", words),
        Check(f"Memory of a device{of}", needed.peak.total, "bytes", tone, memory_words, _memory_formula(needed)),
    ]


def _config(phase: PipelinePhase) -> RunConfig:
    """What the phase's run will be. Raises ModelCoreError for what cannot be one."""
    parallel = {**phase.config.get("parallel", {}), "num_processes": phase.num_processes}
    return RunConfig.parse({**phase.config, "phase": phase.phase, "parallel": parallel})


def _memory_formula(needed: Memory) -> str:
    """The sum of the parts at the peak."""
    parts = [(name, number) for name, number in needed.peak.parts.items() if number]
    return f"{' + '.join(f'{name} {number:,}' for name, number in parts)} = {needed.peak.total:,} bytes".replace(",", "\u202f")


def _remedy(phase: PipelinePhase, smallest: int) -> str:
    """The smallest layout that fits on devices like the smallest that is up; else what else to change."""
    config, shape = _config(phase), with_vocabulary(phase_shape(phase), _config(phase))
    count = device_counts()["total"]
    found = smallest_layout(config, shape, work_of(config, shape), Hardware("device", smallest), count=max(count, 1))
    if found.fit is not None:
        num = found.fit.parallel.num_processes
        return f"It fits with {num} process{'es' if num > 1 else ''}, {layout_words(found.fit.parallel)}: set that under Parallel."
    remedy = "Choose a smaller model, or lower the answers that are sampled at once."
    return f"No layout on the {count} devices that are up fits. {remedy}"


def _fits(needed: Memory, phase: PipelinePhase) -> tuple[str, str]:
    """Tone and words of the memory that each device needs, against the smallest that is up."""
    parts = sorted(needed.peak.parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {as_bytes(number)}" for name, number in parts if number)
    words = f"at its peak, {MOMENTS[needed.peak.name]}: {listed}"
    devices = Device.objects.filter(node__in=nodes_up(), memory_bytes__gt=0)
    smallest = devices.aggregate(smallest=Min("memory_bytes"))["smallest"]
    if smallest is None:
        return "queued", f"{words}. No device that is up says how much it has"
    if needed.peak.total > smallest:
        remedy = _remedy(phase, smallest)
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


def _time(pipeline: Pipeline, found: list[Estimate]) -> Check:
    """Device-time of all phases: measured steps, and the budget where a phase was never run so."""
    expected = [one.expected for one in found]
    formula = " + ".join(f"{one.phase} {duration(one.expected)}" for one in found if one.expected is not None)
    parts = [f"{one.phase}: {one.formula}" for one in found if one.formula]
    unknown = [one.phase for one in found if one.expected is None]
    if unknown:
        words = f"not known: {', '.join(unknown)} was not run with this model and these sizes, and there is no budget."
        return Check("Device time", None, "", "queued", f"{words} A short launch measures it", "; ".join(parts))
    total = sum(value for value in expected if value is not None)
    fixes = " ".join(one.fix for one in found if one.fix)
    guessed = [one.phase for one in found if one.device_seconds is None]
    words = "measured here, in runs of this project"
    if guessed:
        words = f"at most: {', '.join(guessed)} was not run so, and has its share of the budget, as it was stated"
    tone = "waiting" if fixes else "succeeded"
    return Check("Device time", total, "duration", tone, fixes or words, "; ".join([formula, *parts]))


def _clock(pipeline: Pipeline, found: list[Estimate]) -> list[Check]:
    """Time on the clock, one phase after another, against its limit."""
    if any(one.expected is None for one in found):
        return []
    seconds = sum((one.expected or 0.0) / one.num_processes for one in found)
    formula = " + ".join(f"{duration(one.expected)} ÷ {one.num_processes}" for one in found)
    limit = pipeline.budget_wall_seconds
    if limit and seconds > limit:
        raised = f"Raise it to {duration(seconds)} under Budget"
        words = f"The limit is {duration(limit)}. {raised}, give phases more processes, or lower steps."
        return [Check("On the clock", seconds, "duration", "failed", words, formula)]
    words = "one phase after another, without waiting for devices"
    return [Check("On the clock", seconds, "duration", "succeeded", words, formula)]


def _dollars(pipeline: Pipeline, found: list[Estimate]) -> list[Check]:
    """What it costs, against the budget. A phase that its share ends early costs its share, so the fix is its own."""
    price, known = pipeline.dollars_per_device_hour, [one.expected for one in found if one.expected is not None]
    if not price:
        return [Check("Cost", None, "", "queued", "not known: say under Budget what a device-hour costs")]
    if len(known) < len(found):
        return [Check("Cost", None, "", "queued", "not known, as the device-time is not")]
    total = dollars_of(sum(known), price)
    formula = f"{duration(sum(known))} ÷ 3600 s × ${price:,.2f} a device-hour"
    full = sum(one.device_seconds or one.limit or 0.0 for one in found)
    limit = pipeline.budget_dollars
    if limit and dollars_of(full, price) > limit * (1 + 1e-6):
        asked = f"All steps would cost ${dollars_of(full, price):,.2f} and the budget is ${limit:,.2f}"
        words = f"{asked}: phases end early. Raise it, or lower steps."
        return [Check("Cost", round(total, 2), "dollars", "failed", words, formula)]
    words = f"of ${limit:,.2f}" if limit else "no budget in dollars"
    return [Check("Cost", round(total, 2), "dollars", "succeeded", words, formula)]
