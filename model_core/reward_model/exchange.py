"""Reward models as Hugging Face directories: classes for sequence classification with one label, safetensors.

The head is the tensor `score.weight` in the place of `lm_head.weight`, so that a reward model is not read as a language model
nor the reverse; the centre is `reward_centre` in config.json. Reading is strict: a tensor that lacks, is unexpected or has
another shape is named. Source: transformers' GenericForSequenceClassification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from model_core.causal.exchange import finite, read_shape, tensor_sizes, write_student
from model_core.causal.shape import DenseShape
from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model.exchange import export_state, load_pretrained
from model_core.published.families import ARCHITECTURES as OWN_CLASSES
from model_core.published.families import DENSE, DENSE_CLASSES
from model_core.published.files import WeightFiles, named, read_object
from model_core.reward_model.model import CENTRE, SCORE, RewardModel, RewardShape, RewardStudent, RewardTransformer

SAID = "reward_centre"
CLASSES = {kind: name.replace("ForCausalLM", "ForSequenceClassification") for kind, name in (OWN_CLASSES | DENSE_CLASSES).items()}


def export_reward_model(
    state: Mapping[str, Tensor], shape: RewardShape, directory: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Writes a whole state dict and the tokenizer. Raises CheckpointError when something lacks or is not finite."""
    trunk = shape.trunk
    said = {
        "architectures": [CLASSES[trunk.model_type]], "id2label": {"0": "reward"}, "label2id": {"reward": 0},
        SAID: float(finite(state, CENTRE)[0]),
    }  # fmt: skip
    if isinstance(trunk, ModelConfig):
        export_state(state, trunk, directory, tokenizer, kind=RewardTransformer, said=said)
        return
    write_student(state, reward_tensor_sizes(trunk), trunk, directory, tokenizer, said)


def load_reward_model(directory: Path) -> tuple[RewardModel, RewardShape]:
    """The reward model of a directory, in float32. Raises CheckpointError naming the file, the tensor or the setting."""
    stored = read_object(directory / "config.json")
    classes = stored.get("architectures")
    if classes != [CLASSES.get(str(stored.get("model_type")))]:
        raise CheckpointError(f"{directory} is no reward model: config.json says {classes!r}. One is trained by the phase "
                              f"reward_model and is of {', '.join(sorted(set(CLASSES.values())))}.")
    centre = stored.get(SAID)
    if isinstance(centre, bool) or not isinstance(centre, int | float) or not math.isfinite(centre):
        raise CheckpointError(f"{directory}/config.json: {SAID} is {centre!r}, but it is the number that scores are counted from.")
    model = _student(directory) if stored["model_type"] in DENSE else load_pretrained(directory, kind=RewardTransformer)
    assert isinstance(model, RewardModel)
    model.centre = torch.tensor([float(centre)])
    return model, RewardShape(model.config)


def reward_tensor_sizes(shape: DenseShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the directory and its size."""
    trunk = {name: size for name, size in tensor_sizes(shape).items() if name.startswith("model.")}
    return {**trunk, SCORE: (1, RewardShape(shape).hidden_size)}


def _student(directory: Path) -> RewardStudent:
    shape, files = read_shape(directory), WeightFiles(directory)
    wanted, found = reward_tensor_sizes(shape), {name: header.shape for name, header in files.headers.items()}
    for what, names in (
        ("lacks", wanted.keys() - found.keys()), ("holds the unexpected", found.keys() - wanted.keys()),
        ("has another shape for", [name for name in wanted if found.get(name, wanted[name]) != wanted[name]]),
    ):  # fmt: skip
        if names:
            raise CheckpointError(f"{directory} {what} {named(sorted(names))}.")
    model = RewardStudent(shape)
    stored: dict[str, Any] = {name: finite({name: files.tensor(name)}, name) for name in wanted}
    model.load_state_dict({**stored, CENTRE: model.centre})
    return model
