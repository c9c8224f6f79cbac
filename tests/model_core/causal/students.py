"""A student of a few thousand weights."""

from __future__ import annotations

from typing import Any

import torch

from model_core.causal import DenseShape, Student

SIZES: dict[str, Any] = {
    "vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "head_dim": 4,
}  # fmt: skip


def shape(kind: str = "qwen2", **values: Any) -> DenseShape:
    return DenseShape.of({**SIZES, "model_type": kind, **values}, where="test")


def student(kind: str = "qwen2", **values: Any) -> Student:
    torch.manual_seed(0)
    return Student(shape(kind, **values))
