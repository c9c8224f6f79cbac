"""What distillation starts with: a student with its tokenizer, and the rows that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerFast

from model_core.causal import DenseShape, Student, count_dense, load_student
from model_core.causal.exchange import read_shape
from model_core.config import RunConfig, RunPaths
from model_core.data.dataset import Row, read_rows
from model_core.data.tokenizer import train_tokenizer
from model_core.errors import CheckpointError, ConfigError, DataError
from model_core.published.marks import CHAT_TEMPLATE, SPECIAL
from model_core.training.checkpoints import read_metadata, verify
from model_core.training.start import (
    Start,
    available_bytes,
    is_student,
    load_start,
    load_tokenizer,
    refuse_reward_model,
    training_rows,
)
from model_core.training.world import World

if TYPE_CHECKING:
    from model_core.phases.distillation import Distillation

CHAINS = "chains"
"""File in a checkpoint's `state/` that rejection sampling keeps its chains in, see `model_core.grpo.chains`."""
BYTES_OF_STATE = 16
"""Of each parameter: weight, gradient and two means of Adam in float32."""


@dataclass(frozen=True)
class StudentStart:
    """A student in float32 with its tokenizer and shape."""

    model: Student
    tokenizer: PreTrainedTokenizerFast
    model_config: DenseShape


def curated_rows(paths: RunPaths) -> list[Row]:
    """What the student learns from: the chains that the run of `rollouts_from` kept, without one the dataset's demonstrations.

    Raises CheckpointError when that checkpoint keeps no chains, DataError when there is nothing to learn from.
    """
    if paths.rollouts_from is None:
        return training_rows(paths, need_completion=True)
    verify(paths.rollouts_from)
    state = Path(paths.rollouts_from) / "state"
    if not (state / f"{CHAINS}.jsonl").is_file():
        raise CheckpointError(f"{paths.rollouts_from} keeps no chains: it is not of rejection sampling. Choose a checkpoint that "
                              "is, or none, and the dataset's demonstrations are learnt.", field="rollouts_from")
    rows = read_rows(state, CHAINS)
    if not rows:
        raise DataError(f"{paths.rollouts_from} was written before a chain was kept. Choose a later checkpoint.",
                        field="rollouts_from")
    return rows


def begin_student(
    config: RunConfig, settings: Distillation.Config, paths: RunPaths, rows: list[Row], world: World
) -> StudentStart:
    """The student that an attempt goes on with: of its own checkpoint, of `start_from`, of `student`, else a new one.

    All ranks must call it. Raises CheckpointError for what is no student, ConfigError at the shape when it has no room.
    """
    origin = paths.resume_from or paths.start_from
    if origin is not None:
        metadata = verify(origin)
        refuse_reward_model(origin, metadata)
        if not is_student(metadata):
            raise CheckpointError(f"{origin} is a mixture-of-experts model, which no student can start from. Leave start_from "
                                  "empty, or choose a checkpoint of distillation.", field="start_from")
        return loaded_student(Path(origin) / "model", world)
    if paths.student is not None:
        return _with_marks(loaded_student(Path(paths.student), world))
    tokenizer = train_tokenizer(config.tokenizer, rows)
    if paths.rollouts_from is not None:
        tokenizer = load_tokenizer(Path(paths.rollouts_from) / "model")
    shape = DenseShape.of(settings.shape(len(tokenizer)), where="phase_config")
    _refuse_too_large(shape, world)
    torch.manual_seed(config.seed)
    return StudentStart(Student(shape), tokenizer, shape)


def load_answering(checkpoint: str | Path) -> Start | StudentStart:
    """Model and tokenizer of a checkpoint of either family. Raises CheckpointError when it is damaged or answers nothing."""
    if not is_student(read_metadata(Path(checkpoint))):
        return load_start(checkpoint)
    refuse_reward_model(checkpoint, verify(checkpoint))
    directory = Path(checkpoint) / "model"
    return StudentStart(load_student(directory), load_tokenizer(directory), read_shape(directory))


def loaded_student(directory: Path, world: World) -> StudentStart:
    """The student in a directory, as it is. All ranks must call it. Raises ConfigError when it has no room."""
    shape = read_shape(directory)
    _refuse_too_large(shape, world)
    return StudentStart(load_student(directory), load_tokenizer(directory), shape)


def _refuse_too_large(shape: DenseShape, world: World) -> None:
    needed, available = BYTES_OF_STATE * count_dense(shape), available_bytes(world)
    if needed > available:
        raise ConfigError(f"The student's weights, gradients and optimizer need {needed / 1e9:.1f} GB in each process, but there "
                          f"are {available / 1e9:.1f} GB; choose a smaller student.", field="phase_config.hidden_size")


def _with_marks(start: StudentStart) -> StudentStart:
    """The student with the marks of our conversations: those that its tokenizer lacks are added, each with the mean of the
    embeddings there are, and its end token becomes ours."""
    tokenizer: Any = start.tokenizer
    pad, bos, eos, _unk, *others = SPECIAL
    tokenizer.add_special_tokens({"pad_token": pad, "bos_token": bos, "eos_token": eos, "extra_special_tokens": others})
    tokenizer.chat_template, tokenizer.padding_side = CHAT_TEMPLATE, "left"
    num_missing = len(tokenizer) - start.model_config.vocab_size
    if num_missing <= 0:
        return start
    shape = DenseShape.of({**start.model_config.values, "vocab_size": len(tokenizer)}, where="student")
    state = dict(start.model.state_dict())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = state[name].mean(dim=0, keepdim=True).expand(num_missing, -1)
        state[name] = torch.cat([state[name], mean])
    model = Student(shape)
    model.load_state_dict(state)
    return StudentStart(model, start.tokenizer, shape)
