"""Writes safetensors files tensor by tensor, with an index when there are several.

The library's own writer takes all tensors of a file at once; this one asks for each when its turn comes.
Source: https://huggingface.co/docs/safetensors, "Format". Tensors of wider numbers stand first, so that all are aligned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_core.published.files import INDEX, WEIGHTS
from model_core.rundir import write_json

MAX_SHARD_BYTES = 5_000_000_000
STORED_AS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNED_TO = 8


@dataclass(frozen=True)
class Entry:
    """A tensor to be written; `load` makes it when it is its turn."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_shards(directory: Path, entries: list[Entry], max_shard_bytes: int, done: Callable[[str, int], None]) -> None:
    """Writes all entries; `done` is told each finished file and the bytes of its tensors."""
    shards = list(_split(entries, max_shard_bytes))
    names = [WEIGHTS] if len(shards) == 1 else [_shard_name(number, len(shards)) for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_file(directory / name, shard)
        done(name, sum(entry.num_bytes for entry in shard))
    if len(shards) > 1:
        where = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        total = sum(entry.num_bytes for entry in entries)
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _shard_name(number: int, count: int) -> str:
    return WEIGHTS.replace(".", f"-{number:05d}-of-{count:05d}.")


def _split(entries: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """As many in a row as fit; a tensor that is larger than a file may be has one of its own."""
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and size + entry.num_bytes > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += entry.num_bytes
    yield shard


def _write_file(file: Path, entries: list[Entry]) -> None:
    entries = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        begin, end = end, end + entry.num_bytes
        header[entry.name] = {"dtype": STORED_AS[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED_TO)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            tensor = entry.load()
            assert tensor.shape == entry.shape and tensor.dtype == entry.dtype, entry.name
            opened.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
