"""What a pass keeps for its backward pass is what autograd saves, whatever the geometry and the precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_core.causal import DenseShape, Student
from model_core.model import Transformer
from model_core.planner.activations import Activations
from model_core.planner.dense import DenseModel
from model_core.planner.dense_activations import DenseActivations
from model_core.training.engine import checkpoint_blocks
from model_core.training.layouts import Share
from model_core.training.supervised import supervised_passes
from tests.model_core.planner.test_parameters import shape

ROWS, TOKENS = 8, 40
GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {"v_head_dim": 32}, "narrow_values": {}, "q_lora": {"q_lora_rank": 24}, "dense": {"first_k_dense_replace": 3},
    "no_shared": {"n_shared_experts": 0}, "top_4": {"num_experts_per_tok": 4}, "large_vocabulary": {"vocab_size": 1500},
    "next_token": {"num_nextn_predict_layers": 1}, "softmax": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
}  # fmt: skip


def saved_bytes(model: Transformer | Student) -> int:
    """Bytes of the storages that one pass of the supervised loss leaves, parameters and buffers left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            saved[place] = tensor
        return tensor

    document = torch.arange(TOKENS + 1).remainder(97).tolist()
    (one,) = supervised_passes(
        [(document[:1], document[1:])] * ROWS, max_tokens=ROWS * (TOKENS + 1), share=Share(0, 1, is_teller=True),
        device=torch.device("cpu"), mtp_weight=0.3 * model.config.num_nextn_predict_layers,
    )  # fmt: skip
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        one(model)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_it_keeps_what_autograd_saves(name: str, dtype: torch.dtype) -> None:
    config = shape(**GEOMETRIES[name])
    model = Transformer(config).to(dtype)
    planned = Activations(config, tokens=ROWS * TOKENS, size=dtype.itemsize).kept(range(3), checkpointing=False)
    assert planned == pytest.approx(saved_bytes(model), rel=0.01)


def test_checkpointed_blocks_keep_their_inputs() -> None:
    config = shape()
    model = Transformer(config)
    checkpoint_blocks(model)
    planned = Activations(config, tokens=ROWS * TOKENS, size=4).kept(range(3), checkpointing=True)
    assert planned == pytest.approx(saved_bytes(model), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_a_student_keeps_what_autograd_saves(kind: str, dtype: torch.dtype) -> None:
    values = {
        "model_type": kind, "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
    }  # fmt: skip
    model = Student(DenseShape.of(values, where="test")).to(dtype)
    planned = DenseActivations(DenseModel.of(values), tokens=ROWS * TOKENS, size=dtype.itemsize).kept(checkpointing=False)
    assert planned == pytest.approx(saved_bytes(model), rel=0.01)
