"""Combinations of layout, precision and phase that DeepSpeed computes wrongly or that this trainer does not have.

Each is refused with its reason and the nearest one that is right. What only the model's shape or the machine can tell is
checked in `model_core.training.layouts`. Source: measured against one process with plain SGD, docs/experiments.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from model_core.errors import ConfigError

if TYPE_CHECKING:
    from model_core.config.run import RunConfig


REWARDED = ("reinforcement", "on_policy_distillation")
"""Phases that sample and reward in each step."""


def check_combination(config: RunConfig, phase: type, *, prefix: str = "") -> None:
    """Raises ConfigError at the field of the first rule that `config` breaks."""
    for field, message in (*_of_stages(config), *_of_layouts(config), *_of_phase(config, phase), *_of_reward(config)):
        raise ConfigError(message, field=f"{prefix}{field}")


def _of_stages(config: RunConfig) -> list[tuple[str, str]]:
    parallel, dtype = config.parallel, config.precision.dtype
    stage, where = parallel.zero_stage, "parallel.zero_stage"
    found = []
    if dtype != "float32" and stage == 0:
        found.append((where, f"{dtype} at zero_stage 0: DeepSpeed steps wrongly there. Set zero_stage 1."))
    if parallel.expert > 1 and stage == 0:
        found.append((where, "Split experts at zero_stage 0: the norm for clipping misses some of them. Set zero_stage 1."))
    if parallel.pipeline > 1 and stage != 1:
        why = "each stage would clip by its own norm" if stage == 0 else "its stages keep their gradients whole"
        found.append((where, f"A pipeline at zero_stage {stage}: {why}. Set zero_stage 1."))
    if parallel.tensor > 1 and stage == 0:
        found.append((where, f"tensor {parallel.tensor} at zero_stage 0: each shard would clip by its own norm. Set zero_stage 1."))
    if parallel.offload != "none" and stage == 0:
        found.append((where, "offload at zero_stage 0: DeepSpeed offloads only what it shards. Set zero_stage 1."))
    return found


def _of_layouts(config: RunConfig) -> list[tuple[str, str]]:
    parallel, dtype = config.parallel, config.precision.dtype
    found = []
    clip_norm = config.phase_config.get("clip_norm", 0.0)
    if parallel.tensor > 1 and parallel.expert > 1 and clip_norm:
        found.append(("parallel.tensor", (
            f"tensor {parallel.tensor} with expert {parallel.expert} and clip_norm {clip_norm:g}: DeepSpeed's norm for clipping "
            "is 0.3 % off there. Set clip_norm 0, or tensor 1, or expert 1.")))
    if parallel.tensor > 1 and parallel.pipeline > 1:
        found.append(("parallel.tensor", (
            f"tensor {parallel.tensor} with pipeline {parallel.pipeline}: AutoTP and a pipeline each order the processes in "
            f"their own way. Set tensor 1 and pipeline {parallel.tensor * parallel.pipeline}, or the reverse.")))
    if config.phase_config.get("aux_loss_alpha") and parallel.pipeline > 1:
        found.append(("phase_config.aux_loss_alpha", (
            "The sequence-wise balance loss in a pipeline: several passes are under way at once, and it is made of one. Set "
            "aux_loss_alpha 0, or pipeline 1.")))
    if parallel.offload != "none" and (parallel.pipeline > 1 or parallel.tensor > 1):
        found.append(("parallel.offload", "offload with pipeline or tensor is not tried here. Set offload none."))
    if parallel.pipeline > 1 and dtype == "float16":
        found.append(("precision.dtype", (
            "float16 in a pipeline: a step that is skipped for its scale would have to be so on every stage. Set bfloat16.")))
    return found


def _of_reward(config: RunConfig) -> list[tuple[str, str]]:
    """A component that would never count in a phase that rewards step by step."""
    last = config.phase_config["steps"] if config.phase in REWARDED else math.inf
    return [
        (f"reward.from_step.{name}", f"{name} counts from step {step} on, but the phase ends at {last}. Lower it, or raise steps.")
        for name, step in config.reward.from_step.items() if step > last
    ]  # fmt: skip


def _of_phase(config: RunConfig, phase: type) -> list[tuple[str, str]]:
    reason = getattr(phase, "no_split_model", "")
    for name in ("pipeline", "tensor"):
        size = getattr(config.parallel, name)
        if reason and size > 1:
            return [(f"parallel.{name}", f"{name} {size} in the phase {config.phase}: {reason}")]
    return []
