"""Small models of every shape, whose answers end now and then, and prompts for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from model_core.config import ModelConfig
from model_core.model import Transformer

EOS, PAD, VOCABULARY = 1, 0, 40

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "q_lora": {"q_lora_rank": 24},
    "groups": {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 2.5},
    "softmax": {"scoring_func": "softmax", "topk_method": "group_limited_greedy", "n_group": 2, "norm_topk_prob": False},
    "yarn": {"rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.7}},
    "tied": {"tie_word_embeddings": True},
    "dense": {"first_k_dense_replace": 2},
    "no_shared": {"n_shared_experts": 0, "first_k_dense_replace": 0},
    "not_absorbed": {"kv_lora_rank": 96, "qk_nope_head_dim": 8, "v_head_dim": 6},
    "odd_rank": {"kv_lora_rank": 13, "q_lora_rank": 7},
}


@cache
def named(name: str) -> Transformer:
    """The model of one of SHAPES."""
    return made(**SHAPES[name])


def made(seed: int = 3, **changes: Any) -> Transformer:
    """Equal arguments give equal weights; norms and router biases are not at their first values."""
    torch.manual_seed(seed)
    base = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
    model = Transformer(ModelConfig.parse(base | changes))
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.3)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name:
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("e_score_correction_bias"):
                tensor.normal_(0, 0.1)
    return model.eval()


def prompts(count: int, seed: int = 1) -> list[list[int]]:
    """Of 3 to 9 tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCABULARY, (3 + i % 7,), generator=generator).tolist() for i in range(count)]
