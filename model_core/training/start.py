"""What a run starts with: rows that fit, a tokenizer, a model; and the checks of the configuration against them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_core.config import ModelConfig, RunConfig, RunPaths
from model_core.data.dataset import Row, read_rows
from model_core.data.tokenizer import encode_rows, train_tokenizer
from model_core.errors import ConfigError, DataError
from model_core.model import Transformer, load_pretrained
from model_core.training.checkpoints import verify
from model_core.training.engine import check_parallel
from model_core.training.world import World

Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Start:
    """A model in float32 with its tokenizer and shape."""

    model: Transformer
    tokenizer: PreTrainedTokenizerFast
    model_config: ModelConfig


def check_machine(config: RunConfig, world: World) -> None:
    """Raises ConfigError when the processes or the machine are not what the configuration asks for."""
    if world.size != config.parallel.num_processes:
        raise ConfigError(
            f"The run was launched with {world.size} processes, but its configuration asks for "
            f"{config.parallel.num_processes}; launch it with model_core.launch.command.",
            field="parallel.num_processes",
        )
    num_places = torch.cuda.device_count() if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    if world.size > num_places:
        what = "GPUs" if torch.cuda.is_available() else "CPU cores"
        raise ConfigError(f"num_processes is {world.size}, but this machine has {num_places} {what}; lower it.",
                          field="parallel.num_processes")
    check_parallel(config)


def training_rows(paths: RunPaths, *, need_completion: bool) -> list[Row]:
    """The training rows. Raises DataError when there is no dataset, no row, or no demonstration where one is needed."""
    if paths.dataset is None:
        raise ConfigError("This phase needs a dataset; choose a prepared version.", field="dataset")
    rows = read_rows(paths.dataset, "train")
    if not rows:
        raise DataError("The dataset has no training rows; prepare it with filters that keep some.", field="dataset")
    if need_completion:
        rows = [row for row in rows if row.completion]
        if not rows:
            raise DataError("No row of the dataset has a completion to learn from; map one, or choose another dataset.",
                            field="dataset")
    return rows


def new_or_loaded(config: RunConfig, start_from: str | None, rows: list[Row]) -> Start:
    """The model that the run begins with: that of `start_from`, else a new one with a tokenizer of `rows`."""
    if start_from is not None:
        return load_start(start_from)
    tokenizer = train_tokenizer(config.tokenizer, rows)
    model_config = config.model
    if model_config.vocab_size == 0:
        model_config = model_config.model_copy(update={"vocab_size": len(tokenizer)})
    if model_config.vocab_size < len(tokenizer):
        raise ConfigError(
            f"model.vocab_size is {model_config.vocab_size}, but the tokenizer has {len(tokenizer)} tokens; raise it, "
            "or set 0 to take the tokenizer's size.", field="model.vocab_size",
        )
    torch.manual_seed(config.seed)
    return Start(Transformer(model_config), tokenizer, model_config)


def load_start(checkpoint: str | Path) -> Start:
    """Model and tokenizer of a checkpoint. Raises CheckpointError when it is incomplete or damaged."""
    metadata = verify(checkpoint)
    directory = Path(checkpoint) / "model"
    model_config = ModelConfig.parse(metadata["model_config"], prefix="model")
    model = load_pretrained(directory)
    return Start(model, load_tokenizer(directory), model_config)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a checkpoint's `model/`; nothing in it is executed."""
    tokenizer: Any = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def encode_fitting(
    tokenizer: PreTrainedTokenizerFast, rows: list[Row], *, limit: int, reserve: int = 0, field: str
) -> list[Encoded]:
    """Token ids of `rows`. Raises ConfigError for `field` when one is longer than `limit` less `reserve` tokens."""
    encoded = encode_rows(tokenizer, rows)
    longest = max(len(prompt) + len(completion) for prompt, completion in encoded)
    if longest + reserve > limit:
        num_long = sum(len(p) + len(c) + reserve > limit for p, c in encoded)
        room = f" and {reserve} tokens of answer" if reserve else ""
        raise ConfigError(
            f"{num_long} of {len(rows)} rows do not fit into {limit} positions: the longest has {longest} tokens"
            f"{room}. Raise model.max_position_embeddings of the first phase, or filter the dataset by length.",
            field=field,
        )
    return encoded


