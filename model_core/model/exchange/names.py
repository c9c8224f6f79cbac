"""Published names and ours: they differ in the routed experts, which are stacked here and written one by one.

A published checkpoint may repeat a tensor that the model holds once: the embedding and the head of the block of
multi-token prediction, and a tied head. SGLang takes them from the main model (`deepseek_weight_loader`), and so they are
read only to be compared, and not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.config import ModelConfig
from model_core.model.rope import angles
from model_core.model.transformer import Transformer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BIAS = "e_score_correction_bias"
"""The one tensor that stays float32 in every precision: its steps would be lost in 16 bit."""


@dataclass(frozen=True)
class Place:
    """Where a published tensor lies: the whole of our tensor `name`, or some rows of one expert's matrix."""

    name: str
    shape: tuple[int, ...]
    expert: int | None = None
    first_row: int = 0

    def within(self, state: Mapping[str, Tensor]) -> Tensor:
        """The part of `state`, sharing its memory."""
        whole = state[self.name]
        return whole if self.expert is None else whole[self.expert, self.first_row : self.first_row + self.shape[0]]


def places(config: ModelConfig, kind: type[Transformer] = Transformer) -> dict[str, Place]:
    """Every published tensor of a model of this shape and kind, in the order of its layers."""
    state = _on_meta(config, kind).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in kind.unpublished}
    if config.tie_word_embeddings:
        shapes.pop(HEAD, None)
    return dict(published for name, shape in shapes.items() for published in _published(name, shape))


def repeats(config: ModelConfig) -> dict[str, str]:
    """Published names that say again what another one has said."""
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    found = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}
    for index in range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers):
        found |= {f"model.layers.{index}.embed_tokens.weight": EMBEDDING, f"model.layers.{index}.shared_head.head.weight": head}
    return found


def dtype_of(name: str, dtype: torch.dtype) -> torch.dtype:
    """In which format a tensor is kept when the model's is `dtype`."""
    return torch.float32 if name.endswith(BIAS) else dtype


def blank_model(config: ModelConfig, dtype: torch.dtype, kind: type[Transformer] = Transformer) -> Transformer:
    """A model whose weights are allocated and hold nothing yet; its memory is taken when they are written."""
    model = _on_meta(config, kind).to(dtype).to_empty(device="cpu")
    if config.tie_word_embeddings and hasattr(model, "lm_head"):
        model.lm_head.weight = model.model.embed_tokens.weight
    model.cos, model.sin = angles(config)
    for module in model.modules():
        if getattr(module, BIAS, None) is not None:
            setattr(module, BIAS, torch.empty(config.n_routed_experts))
    return model


def _on_meta(config: ModelConfig, kind: type[Transformer]) -> Transformer:
    with torch.device("meta"):
        return kind(config, is_blank=True)


def _published(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Place]]:
    prefix, _, part = name.rpartition(".")
    if part not in ("gate_up_proj", "down_proj"):
        yield name, Place(name, shape)
        return
    num, rows, columns = shape
    names = ["gate_proj", "up_proj"] if part == "gate_up_proj" else [part]
    height = rows // len(names)
    for expert in range(num):
        for index, published in enumerate(names):
            yield f"{prefix}.{expert}.{published}.weight", Place(name, (height, columns), expert, index * height)
