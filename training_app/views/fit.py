"""The fit check before a launch: what the pipeline will need, by formulas that are shown, against what is here.

Nothing is promised that was not measured: times come from budgets, or from the last launch of the same pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Min, Sum

from model_core.config import ModelConfig
from model_core.phases import PHASES
from r1platform.models import Device
from r1platform.selectors import device_counts
from r1platform.templatetags.r1 import as_bytes, percent
from training_app.models import DatasetVersion, PhaseRun, Pipeline, PipelinePhase
from training_app.scheduling import nodes_up
from training_app.states import RunState, VersionState

BYTES_PER_PARAMETER = ((1, 8), (2, 4), (3, 4))
"""(ZeRO stage that shards it, bytes): two AdamW moments 8, gradients 4, fp32 weights 4."""


@dataclass(frozen=True)
class Check:
    """One line of the fit check."""

    label: str
    value: Any
    unit: str
    tone: str
    words: str


def parameters(model: ModelConfig) -> tuple[int, int]:
    """Parameters without embeddings and output head, in total and active for one token.

    Source: DeepSeek-V3 technical report, section 2.1; the same modules as `model_core.model`.
    """
    attention = _attention(model)
    expert = 3 * model.hidden_size * model.moe_intermediate_size
    dense = 3 * model.hidden_size * model.intermediate_size
    gate = (model.hidden_size + 1) * model.n_routed_experts
    norms = 2 * model.hidden_size
    num_dense = min(model.first_k_dense_replace, model.num_hidden_layers)
    num_sparse = model.num_hidden_layers - num_dense
    shared = model.n_shared_experts * expert
    total = num_dense * dense + num_sparse * (model.n_routed_experts * expert + shared + gate)
    active = num_dense * dense + num_sparse * (model.num_experts_per_tok * expert + shared + gate)
    every = model.num_hidden_layers * (attention + norms) + model.hidden_size
    return total + every, active + every


def _attention(model: ModelConfig) -> int:
    heads, hidden = model.num_attention_heads, model.hidden_size
    query_width = heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)
    query = hidden * query_width if model.q_lora_rank is None else model.q_lora_rank * (hidden + query_width + 1)
    latent = hidden * (model.kv_lora_rank + model.qk_rope_head_dim) + model.kv_lora_rank
    unpacked = model.kv_lora_rank * heads * (model.qk_nope_head_dim + model.v_head_dim)
    return query + latent + unpacked + heads * model.v_head_dim * hidden


def fit_check(pipeline: Pipeline, phases: list[PipelinePhase]) -> list[Check]:
    """What the pipeline needs and whether it is here."""
    new = [phase for phase in phases if phase.starts_from_id is None]
    models = [check for phase in new for check in _model(phase, f" of {phase.name}" if len(new) > 1 else "")]
    return [*models, _data(phases), _devices(phases), _time(pipeline, phases)]


def state_bytes(num_parameters: int, *, zero_stage: int, num_processes: int) -> int:
    """Bytes of weights, gradients and optimizer on each device; what the ZeRO stage shards is divided by the processes."""
    return sum(
        -(-num_parameters * size // (num_processes if zero_stage >= stage else 1))
        for stage, size in BYTES_PER_PARAMETER
    )


def _model(phase: PipelinePhase, of: str) -> list[Check]:
    """Parameters and memory of the new model that the phase starts."""
    total, active = parameters(ModelConfig.model_validate(phase.config.get("model", {})))
    words = f"{active:,} of them active for a token; embeddings come on top".replace(",", "\u202f")
    stage = phase.config.get("parallel", {}).get("zero_stage", 1)
    needed = state_bytes(total, zero_stage=stage, num_processes=phase.num_processes)
    tone, memory_words = _fits(needed, stage)
    return [
        Check(f"Parameters{of}", total, "count", "succeeded", words),
        Check(f"Memory of a device{of}", needed, "bytes", tone, memory_words),
    ]


def _fits(needed: int, stage: int) -> tuple[str, str]:
    """Tone and words of the memory that each device needs, against the smallest that is up."""
    words = f"16 bytes a parameter: weights, gradients, AdamW; ZeRO stage {stage} shares what it can. Activations come on top"
    devices = Device.objects.filter(node__in=nodes_up(), memory_bytes__gt=0)
    smallest = devices.aggregate(smallest=Min("memory_bytes"))["smallest"]
    if smallest is None:
        return "queued", f"{words}. No device that is up says how much it has"
    if needed > smallest:
        remedy = "Choose a smaller model, or share it: more processes with ZeRO stage 3."
        return "failed", f"The smallest device that is up has {as_bytes(smallest)}. {remedy}"
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
