"""Directories of dense students: read and written so that transformers finds every tensor and no other.

Only safetensors cross this border: pickled weights and Python files are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model_core.causal.shape import DenseShape
from model_core.causal.student import Student, transformers_maker
from model_core.errors import CheckpointError
from model_core.model.exchange.shards import MAX_SHARD_BYTES, Entry, write_shards
from model_core.model.exchange.writing import SPECIAL, new_directory
from model_core.published.families import DENSE_CLASSES
from model_core.published.files import WeightFiles, named, read_object
from model_core.rundir import write_json

_FORBIDDEN = {".py", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def read_shape(directory: Path) -> DenseShape:
    """The shape in config.json. Raises CheckpointError for another class, and for a directory with code or pickles."""
    forbidden = sorted(item.name for item in directory.glob("*") if item.suffix.lower() in _FORBIDDEN)
    if forbidden:
        raise CheckpointError(f"{directory} holds {forbidden[0]}: code and pickled weights are refused, use safetensors.")
    return DenseShape.of(read_object(directory / "config.json"), where=str(directory))


def load_student(directory: Path) -> Student:
    """The student of a directory, in float32. Raises CheckpointError when a tensor is missing, unexpected or misshapen."""
    shape = read_shape(directory)
    WeightFiles(directory).close()  # every disagreement of index, files and headers is refused
    maker = transformers_maker()
    try:
        whole, found = maker.from_pretrained(
            str(directory), dtype=torch.float32, trust_remote_code=False, local_files_only=True, use_safetensors=True,
            attn_implementation="sdpa", output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{directory} cannot be read by transformers: {str(error)[:200]}.") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found.get(what):
            raise CheckpointError(f"{directory} has {what.replace('_', ' ')}: {named([str(key) for key in found[what]])}.")
    student = Student(shape)
    student.model, student.lm_head = whole.model, whole.lm_head
    return student


def export_student(
    state: Mapping[str, Tensor], shape: DenseShape, directory: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Writes weights in float32, config.json and the tokenizer. Raises CheckpointError when something lacks or is not finite."""
    write_student(state, tensor_sizes(shape), shape, directory, tokenizer, {})


def write_student(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], shape: DenseShape, directory: Path,
    tokenizer: PreTrainedTokenizerFast, said: Mapping[str, Any],
) -> None:  # fmt: skip
    """`export_student` of the `wanted` tensors; config.json also has what is `said`."""
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise CheckpointError(f"The state to be written lacks {named(missing)}.")
    entries = [Entry(name, size, torch.float32, partial(finite, state, name)) for name, size in wanted.items()]
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in SPECIAL}
    with new_directory(directory) as part:
        write_shards(part, entries, MAX_SHARD_BYTES, lambda _file, _bytes: None)
        tokenizer.save_pretrained(str(part))
        write_json(part / "generation_config.json", {"do_sample": False, **special})
        write_json(part / "config.json", {
            **shape.resolved(), "architectures": [DENSE_CLASSES[shape.model_type]], "dtype": "float32", **special, **said})


def count_dense(shape: DenseShape) -> int:
    """Parameters of a student of this shape, without making it."""
    return sum(torch.Size(size).numel() for size in tensor_sizes(shape).values())


def tensor_sizes(shape: DenseShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the directory and its size; a head that is the embedding is not repeated."""
    maker = transformers_maker()
    with torch.device("meta"):
        model = maker.from_config(shape.config())
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def finite(state: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of the state in float32. Raises CheckpointError naming it when it holds NaN or infinity."""
    tensor = state[name].detach().cpu().float()
    if not tensor.isfinite().all():
        raise CheckpointError(f"{name} holds NaN or infinity; the model is not written.")
    return tensor
