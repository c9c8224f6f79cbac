"""Random DeepSeek-V2 and V3 models of a few thousand parameters, made and written by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from model_core.config import ModelConfig, TokenizerConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import train_tokenizer

CLASSES = {"deepseek_v2": (DeepseekV2Config, DeepseekV2ForCausalLM), "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM)}
SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 48, "moe_intermediate_size": 16,
    "num_attention_heads": 2, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "max_position_embeddings": 64,
}  # fmt: skip
V2: dict[str, Any] = {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False}
GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "v3": {},
    "v3_q_lora": {"q_lora_rank": 10},
    "v3_groups": {**GROUPS, "routed_scaling_factor": 2.5},
    "v3_unnormalised": {"norm_topk_prob": False, "rms_norm_eps": 1e-5, "rope_theta": 500.0},
    "v3_tied": {"tie_word_embeddings": True},
    "v3_wide_heads": {"qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 14, "n_shared_experts": 2},
    "v3_all_dense": {"first_k_dense_replace": 3},
    "v3_yarn": {"q_lora_rank": 10, "rope_scaling": YARN},
    "v3_yarn_plain_strength": {"rope_scaling": YARN | {"mscale_all_dim": 0.0, "beta_fast": 4.0, "beta_slow": 0.5}},
    "v3_yarn_one_strength": {"rope_scaling": YARN | {"mscale": 0.6, "mscale_all_dim": 0.0}},
    "v3_yarn_other_strength": {"rope_scaling": YARN | {"mscale": 0.6, "mscale_all_dim": 0.9}},
    "v2": V2,
    "v2_lite": {**V2, "n_shared_experts": 2, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707}},
    "v2_grouped": {**V2, **GROUPS, "topk_method": "group_limited_greedy", "routed_scaling_factor": 4.0, "q_lora_rank": 10},
    "v2_tied": {**V2, "tie_word_embeddings": True, "first_k_dense_replace": 0, "n_shared_experts": 3},
}


def shape(**changes: Any) -> ModelConfig:
    return ModelConfig.parse(SMALL | changes)


def theirs(config: ModelConfig, seed: int = 5) -> PreTrainedModel:
    """Weights far from their initial ones, a router bias that steers, and norms that are not 1."""
    make_config, make_model = CLASSES[config.model_type]
    values = config.resolved()
    yarn = values.pop("rope_scaling")
    rotary = {"rope_type": "default", "rope_theta": values.pop("rope_theta")}
    if yarn["factor"] > 1:
        rotary |= {"rope_type": "yarn", **yarn}
        if not yarn["mscale_all_dim"]:
            strength = 1 + 0.1 * yarn["mscale"] * torch.tensor(yarn["factor"], dtype=torch.float64).log().item()
            rotary["attention_factor"] = strength
    torch.manual_seed(seed)
    made = make_config(
        **values, num_key_value_heads=config.num_attention_heads, rope_parameters=rotary, bos_token_id=None, eos_token_id=None
    )
    model = make_model(made).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(0, 0.1)
            elif name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim > 1:
                tensor.normal_(0, 0.15)
    return model


def tokens(config: ModelConfig, rows: int = 5, length: int = 48) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


def tokenizer() -> PreTrainedTokenizerFast:
    row = Row(prompt="What is 17 + 25?", completion="<think>7+5=12</think>42", answer="42", task="", meta={})
    return train_tokenizer(TokenizerConfig(kind="byte_bpe", vocab_size=300), [row])


def say(directory: Path, **values: Any) -> None:
    """Changes config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def forget(directory: Path, *names: str) -> None:
    """Takes names out of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name not in names}))
