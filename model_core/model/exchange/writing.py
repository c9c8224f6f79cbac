"""Writing: weights, tokenizer and config.json into a directory that is either whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model.exchange.names import EMBEDDING, Place, dtype_of, places
from model_core.model.exchange.shape import written_config
from model_core.model.exchange.shards import MAX_SHARD_BYTES, STORED_AS, Entry, write_shards
from model_core.model.transformer import Transformer
from model_core.published.files import named
from model_core.rundir import sync, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def save_pretrained(
    model: Transformer, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None = None, *,
    dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:  # fmt: skip
    """Writes weights, config.json and, when given, the tokenizer with its chat template.

    `dtype` is the weights' format in the files, by default the model's. Raises CheckpointError when `directory` holds
    anything, or a weight is not finite in that format.
    """
    export_state(model.state_dict(), model.config, directory, tokenizer, dtype=dtype, max_shard_bytes=max_shard_bytes)


def export_state(
    state: Mapping[str, Tensor], config: ModelConfig, directory: str | Path, tokenizer: PreTrainedTokenizerBase | None = None, *,
    dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES, kind: type[Transformer] = Transformer,
    said: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes a whole state dict of `Transformer`, or of another `kind`, as `save_pretrained` does; config.json also has what
    is `said`. Raises CheckpointError naming what the state lacks."""
    wanted = places(config, kind)
    missing = sorted({place.name for place in wanted.values()} - state.keys())
    if missing:
        raise CheckpointError(f"The state to be written lacks {named(missing)}.")
    chosen = state[EMBEDDING].dtype if dtype is None else dtype
    if chosen not in STORED_AS:
        raise CheckpointError(f"Weights cannot be written in {chosen}, only in {', '.join(map(str, STORED_AS))}.")
    entries = [
        Entry(name, place.shape, dtype_of(name, chosen), partial(_part, state, place, name, dtype_of(name, chosen)))
        for name, place in wanted.items()
    ]
    special: dict[str, Any] = dict.fromkeys(SPECIAL)
    with new_directory(Path(directory)) as part:
        write_shards(part, entries, max_shard_bytes, lambda _file, _bytes: None)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(part))
            special = {name: getattr(tokenizer, name) for name in SPECIAL}
        write_json(part / "generation_config.json", {"do_sample": False, **special})
        write_json(part / "config.json", {**written_config(config, dtype=name_of(chosen)), **special, **(said or {})})


def name_of(dtype: torch.dtype) -> str:
    """As config.json says it."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A directory beside `target` that takes its name when all is written; nothing stays when it is not.

    Raises CheckpointError when `target` holds anything.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not empty; choose a directory that is not there yet.")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for written in (*part.rglob("*"), part):
            sync(written)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sync(target.parent)


def _part(state: Mapping[str, Tensor], place: Place, name: str, dtype: torch.dtype) -> Tensor:
    tensor = place.within(state).detach().cpu().to(dtype)
    if not tensor.isfinite().all():
        raise CheckpointError(f"{name} holds NaN or infinity in {dtype}; the model is not written.")
    return tensor
