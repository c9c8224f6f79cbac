"""What a run needs of its device, from its configuration alone: the trainer asks before it starts, the platform before a
launch.

What only the data tells is taken at its limit (passes are as full as they may be) or assumed (the length of prompts).
"""

from __future__ import annotations

from typing import Any

from model_core.config import RunConfig
from model_core.errors import ConfigError
from model_core.phases import PHASES
from model_core.planner.dense import DenseModel
from model_core.planner.memory import Memory, Work, effective_stage, memory
from model_core.planner.parameters import Shape
from model_core.planner.units import in_bytes

MAX_ROWS = 512
"""Completions that the sampler makes together."""
PROMPT_TOKENS = 256
"""Length of a prompt where the data is not known."""


def needed_bytes(config: RunConfig, shape: Shape | None = None) -> Memory:
    """The memory of one process of `config`, whose model is `shape` where it comes from a checkpoint or a directory.

    Raises ConfigError for a layout that the shape does not allow.
    """
    shape = with_vocabulary(shape or shape_of(config), config)
    return memory(shape, config.parallel, config.precision, work_of(config, shape))


def refuse_too_large(config: RunConfig, *, available_bytes: int, shape: Shape | None = None) -> None:
    """Raises ConfigError at `model` when a process has not even the memory for weights, gradients and optimizer.

    `available_bytes` is what one process may take: a GPU's memory, or the machine's divided by its processes.
    """
    needed = needed_bytes(config, shape).state_bytes
    if needed > available_bytes:
        raise ConfigError(
            f"The model's weights, gradients and optimizer need {in_bytes(needed)} in each process, but there are "
            f"{in_bytes(available_bytes)}; choose a smaller model, or share it among more processes.", field="model",
        )  # fmt: skip


def shape_of(config: RunConfig) -> Shape:
    """The new model that the run would start with: `model`, or the student that the phase's settings are of."""
    settings: Any = PHASES.get(config.phase).Config.parse(config.phase_config, prefix="phase_config")
    if not hasattr(settings, "shape"):
        return config.model
    return DenseModel.of(settings.shape(0), where="phase_config")


def with_vocabulary(shape: Shape, config: RunConfig) -> Shape:
    """The shape with the vocabulary that its tokenizer will have at most, where it names none."""
    return shape if shape.vocab_size else shape.model_copy(update={"vocab_size": config.tokenizer.vocab_size})


def work_of(config: RunConfig, shape: Shape) -> Work:
    """What one process of the run has to do at once."""
    settings: Any = PHASES.get(config.phase).Config.parse(config.phase_config, prefix="phase_config")
    is_whole = effective_stage(config.parallel, config.precision.dtype) == 0
    samples = max(_samples(settings), config.held_out.num_problems, config.held_out.num_problems_during)
    longest = max(getattr(settings, "max_new_tokens", 0), config.held_out.max_new_tokens)
    has_kl = getattr(settings, "kl_coef", 0) > 0 or getattr(settings, "kl_probe", 0) > 0
    has_teacher = hasattr(settings, "on_policy_fraction")  # taken to be as large as the student
    rows = _rows(settings) * shape.max_position_embeddings // config.parallel.data
    return Work(
        micro_tokens=min(settings.max_micro_tokens, rows),
        optimizer="muon" if settings.optimizer == "muon" or (settings.optimizer == "auto" and is_whole) else "adamw",
        cache_rows=min(MAX_ROWS, -(-samples // config.parallel.num_processes)),
        cache_tokens=min(shape.max_position_embeddings, PROMPT_TOKENS + longest),
        has_reference=has_kl or has_teacher,
    )


def _samples(settings: Any) -> int:
    """Completions that the phase samples at once, over all processes."""
    if hasattr(settings, "group_size"):
        return int(settings.prompts_per_step * settings.group_size)
    if hasattr(settings, "on_policy_fraction"):
        return int(settings.batch_size)
    return int(settings.prompts_per_round * settings.num_samples) if hasattr(settings, "num_samples") else 0


def _rows(settings: Any) -> int:
    """Sequences of one update, over all processes."""
    if hasattr(settings, "group_size"):
        return int(-(-settings.prompts_per_step * settings.group_size // settings.num_minibatches))
    return int(settings.batch_size)

