"""What on-policy distillation starts with: a student of either family, and a frozen teacher that speaks the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from model_core.causal import load_student
from model_core.causal.exchange import read_shape
from model_core.config import RunPaths
from model_core.errors import CheckpointError, ConfigError
from model_core.training.checkpoints import verify
from model_core.training.families import Model, family_of
from model_core.training.start import (
    REWARD_MODEL,
    Start,
    available_bytes,
    begin,
    is_student,
    load_start,
    load_tokenizer,
    refuse_reward_model,
)
from model_core.training.students import StudentStart, loaded_student
from model_core.training.world import World

BYTES_OF_WEIGHT = 4
"""Of each of the teacher's parameters, which are only read."""


def begin_taught(paths: RunPaths, world: World) -> tuple[Start | StudentStart, Model]:
    """The student that an attempt goes on with, and the teacher in evaluation, on the device of this rank.

    All ranks must call it. Raises ConfigError when one is not named or the two have different tokens, CheckpointError for what
    cannot be one.
    """
    if paths.rollouts_from is None:
        raise ConfigError("On-policy distillation needs a teacher; choose its checkpoint.", field="rollouts_from")
    start = _student(paths, world)
    teacher, tokenizer = _teacher(Path(paths.rollouts_from), world)
    _refuse_other_tokens(start, teacher, tokenizer, name=paths.rollouts_from)
    return start, teacher.to(world.device).eval().requires_grad_(False)


def _student(paths: RunPaths, world: World) -> Start | StudentStart:
    origin = paths.resume_from or paths.start_from
    if origin is None:
        if paths.student is None:
            raise ConfigError("On-policy distillation needs a student that can answer; choose its checkpoint.", field="start_from")
        return loaded_student(Path(paths.student), world)
    metadata = verify(origin)
    refuse_reward_model(origin, metadata)
    return loaded_student(Path(origin) / "model", world) if is_student(metadata) else begin(paths)


def _teacher(checkpoint: Path, world: World) -> tuple[Model, PreTrainedTokenizerFast]:
    metadata = verify(checkpoint)
    if metadata.get("phase") == REWARD_MODEL:
        raise CheckpointError(f"{checkpoint} holds a reward model, which says no token. Choose a checkpoint of another phase.",
                              field="rollouts_from")
    if not is_student(metadata):
        loaded = load_start(checkpoint)
        _refuse_without_room(loaded.model_config, world)
        return loaded.model, loaded.tokenizer
    directory = checkpoint / "model"
    _refuse_without_room(read_shape(directory), world)
    return load_student(directory), load_tokenizer(directory)


def _refuse_without_room(shape: Any, world: World) -> None:
    needed, available = BYTES_OF_WEIGHT * family_of(shape).count(shape)[0], available_bytes(world)
    if needed > available:
        raise ConfigError(f"The teacher's weights need {needed / 1e9:.1f} GB in each process beside the student, but there are "
                          f"{available / 1e9:.1f} GB; choose a smaller teacher.", field="rollouts_from")


def _refuse_other_tokens(start: Start | StudentStart, teacher: Model, tokenizer: PreTrainedTokenizerFast, *, name: str) -> None:
    own, theirs = start.tokenizer.get_vocab(), tokenizer.get_vocab()
    what = ""
    if own != theirs:
        differ = {token for token, _number in own.items() ^ theirs.items()}
        what = f"{len(own)} tokens, and the teacher's {len(theirs)}; one that differs is {min(differ)!r}"
    elif start.model_config.vocab_size != teacher.config.vocab_size:
        what = f"{start.model_config.vocab_size} rows, and the teacher's {teacher.config.vocab_size}"
    if what:
        raise ConfigError(f"The student's vocabulary has {what}: {name} cannot judge this student token by token. Choose a teacher "
                          "with the student's own tokenizer, or the phase distillation, which teaches by texts.",
                          field="rollouts_from")
