"""What the phase `reward_model` starts with: a model with a scalar head, its tokenizer, and pairs of answers that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from model_core.causal import load_student
from model_core.config import RunPaths
from model_core.data.dataset import Row
from model_core.errors import ConfigError, DataError
from model_core.reward_model import RewardModel, RewardShape, load_reward_model, with_head
from model_core.reward_model.scoring import documents_of
from model_core.training.checkpoints import read_metadata, verify
from model_core.training.start import REWARD_MODEL, is_student, load_start, load_tokenizer, training_rows

Documents = tuple[list[int], list[int]]
"""The chosen and the rejected answer, each behind its prompt."""


@dataclass(frozen=True)
class RewardStart:
    """A reward model in float32 with its tokenizer and shape."""

    model: RewardModel
    tokenizer: PreTrainedTokenizerFast
    model_config: RewardShape


def begin_reward_model(paths: RunPaths, *, seed: int) -> RewardStart:
    """The reward model that an attempt goes on with: of its own checkpoint, or of `start_from`, where a language model gets a
    new head. Raises CheckpointError, and ConfigError when nothing is named."""
    origin = paths.resume_from or paths.start_from
    if origin is None:
        raise ConfigError("A reward model is trained from a checkpoint; choose one.", field="start_from")
    metadata = read_metadata(Path(origin)) if paths.resume_from else verify(origin)
    directory = Path(origin) / "model"
    torch.manual_seed(seed)
    if metadata.get("phase") == REWARD_MODEL:
        model, shape = load_reward_model(directory)
    else:
        model, shape = with_head(load_student(directory) if is_student(metadata) else load_start(origin).model)
    return RewardStart(model, load_tokenizer(directory), shape)


def training_pairs(paths: RunPaths) -> list[Row]:
    """The training rows with two answers. Raises DataError without any."""
    pairs = [row for row in training_rows(paths, need_completion=False) if row.chosen is not None]
    if not pairs:
        raise DataError("No row of the dataset has a chosen and a rejected answer; map both fields, or choose another dataset.",
                        field="dataset")
    return pairs


def encode_pairs(start: RewardStart, rows: Sequence[Row]) -> list[Documents]:
    """Both answers of each row as token ids. Raises ConfigError when one is too long for the model."""
    both = [
        documents_of(start.tokenizer, [(row.prompt, str(getattr(row, name))) for row in rows]) for name in ("chosen", "rejected")
    ]
    limit = start.model_config.max_position_embeddings
    longest = max((len(document) for documents in both for document in documents), default=0)
    if longest > limit:
        num_long = sum(max(map(len, pair)) > limit for pair in zip(*both, strict=True))
        raise ConfigError(f"{num_long} of {len(rows)} pairs do not fit into the {limit} positions of the model: the longest answer "
                          f"has, with its prompt, {longest} tokens. Filter the dataset by length, or choose another checkpoint.",
                          field="start_from")
    return list(zip(*both, strict=True))
