"""Copies a directory in another format or other shards, tensor by tensor: no model is built, no machine too small."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from model_core.errors import CheckpointError, MachineError
from model_core.model.exchange.names import dtype_of
from model_core.model.exchange.reading import PublishedWeights
from model_core.model.exchange.shape import written_config
from model_core.model.exchange.shards import MAX_SHARD_BYTES, Entry, write_shards
from model_core.model.exchange.writing import SPECIAL, name_of, new_directory
from model_core.rundir import write_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
RESERVE_BYTES = 64 << 20


def convert(
    source: str | Path, target: str | Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES,
    say: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Writes every weight anew, checked, and copies the tokenizer; `dtype` is by default what config.json says.

    Raises CheckpointError for what cannot be read, MachineError when the disk is too small; then nothing is written.
    """
    began, source, target = time.monotonic(), Path(source), Path(target)
    if target.exists():
        raise CheckpointError(f"{target} exists; choose a directory that does not.")
    weights = PublishedWeights(source)
    chosen = _stored_dtype(weights) if dtype is None else dtype
    entries = [
        Entry(name, place.shape, dtype_of(name, chosen), partial(weights.tensor, name, chosen))
        for name, place in weights.places.items()
    ]
    total = sum(entry.num_bytes for entry in entries)
    _check_space(target, total)
    say(f"{len(entries):,} tensors are written in {name_of(chosen)}, {_size(total)}.")
    with new_directory(target) as part:
        write_shards(part, entries, max_shard_bytes, Progress(total, say))
        _copy_rest(weights, part, say)
        special = {name: weights.stored.get(name) for name in SPECIAL}
        write_json(part / "config.json", {**written_config(weights.config, dtype=name_of(chosen)), **special})
    weights.close()
    say(f"{target} is complete after {time.monotonic() - began:.1f} s.")


class Progress:
    """Says after each file how much is written."""

    def __init__(self, total_bytes: int, say: Callable[[str], None]) -> None:
        self._total, self._say, self._done = total_bytes, say, 0

    def __call__(self, file: str, num_bytes: int) -> None:
        self._done += num_bytes
        self._say(f"{file}: {_size(self._done)} of {_size(self._total)}, {100 * self._done // self._total} %.")


def _stored_dtype(weights: PublishedWeights) -> torch.dtype:
    said = weights.stored.get("dtype") or weights.stored.get("torch_dtype") or "float32"
    if str(said) not in DTYPES:
        raise CheckpointError(f"{weights.path}/config.json says dtype {said!r}; choose one of {', '.join(DTYPES)} yourself.")
    return DTYPES[said]


def _check_space(target: Path, num_bytes: int) -> None:
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < num_bytes + RESERVE_BYTES:
        raise MachineError(
            f"{target} needs {_size(num_bytes)}, but {_size(free)} are free in {parent}. Free some space, choose another "
            "disk, or a smaller dtype."
        )


def _copy_rest(weights: PublishedWeights, part: Path, say: Callable[[str], None]) -> None:
    found = [name for name in TOKENIZER if (weights.path / name).is_file()]
    for name in found:
        shutil.copyfile(weights.path / name, part / name)
    say(f"The tokenizer is copied: {', '.join(found)}." if found else f"{weights.path} has no tokenizer, so none is copied.")
    generation = "generation_config.json"
    if (weights.path / generation).is_file():
        shutil.copyfile(weights.path / generation, part / generation)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
