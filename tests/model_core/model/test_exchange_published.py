"""What DeepSeek has published, as far as it can be held without the weights: both shapes, and the names of the tensors.

Source: config.json of DeepSeek-V3 and DeepSeek-V2-Lite, less `auto_map` and what only says how they were trained.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from model_core.config import preset
from model_core.errors import CheckpointError
from model_core.model.exchange import read_config
from model_core.model.exchange.blocks import block_shape
from model_core.model.exchange.names import places, repeats
from model_core.model.exchange.shape import written_config
from model_core.planner import count_parameters

COMMON: dict[str, Any] = {
    "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "moe_layer_freq": 1, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
    "v_head_dim": 128,
}  # fmt: skip
YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "v3_671b": COMMON | {
        "architectures": ["DeepseekV3ForCausalLM"], "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
        "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
        "topk_group": 4, "topk_method": "noaux_tc", "vocab_size": 129280,
        "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
        "quantization_config": {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
        },
    },
    "v2_lite": COMMON | {
        "architectures": ["DeepseekV2ForCausalLM"], "bos_token_id": 100000, "eos_token_id": 100001,
        "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "model_type": "deepseek_v2",
        "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
        "q_lora_rank": None, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_group": 1,
        "topk_method": "greedy", "vocab_size": 102400, "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_config_is_the_preset_and_is_written_as_published(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(PUBLISHED[name]))
    assert read_config(tmp_path) == preset(name)
    written = written_config(preset(name), dtype="bfloat16")
    left_out = {"bos_token_id", "eos_token_id", "use_cache", "quantization_config"}
    assert {key: written[key] for key in PUBLISHED[name].keys() - left_out} == {
        key: value for key, value in PUBLISHED[name].items() if key not in left_out
    }
    file.write_text(json.dumps(written))
    assert read_config(tmp_path) == preset(name)
    file.write_text(json.dumps(PUBLISHED[name] | {"auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        read_config(tmp_path)


def test_the_published_quantization_is_understood() -> None:
    assert block_shape(PUBLISHED["v3_671b"]["quantization_config"], Path("v3")) == (128, 128)


def test_the_published_names_hold_what_deepseek_says_they_do() -> None:
    """Source: README_WEIGHTS.md of DeepSeek-V3: beside the main model there are 11.5B parameters of multi-token prediction,
    whose embedding and head, 0.9B each, are the model's."""
    config = preset("v3_671b")
    held = places(config)
    sizes = {name: math.prod(place.shape) for name, place in held.items()}
    block = sum(size for name, size in sizes.items() if name.startswith("model.layers.61."))
    assert sum(sizes.values()) - block == count_parameters(config)[0] + 58 * 256, "the router biases are no parameters"
    assert block == pytest.approx(11.5e9, rel=0.01)
    assert {first: round(sizes[first] / 1e9, 1) for first in repeats(config).values()} == {
        "model.embed_tokens.weight": 0.9, "lm_head.weight": 0.9,
    }  # fmt: skip
    assert len(repeats(config)) == 2 and "model.layers.60.mlp.experts.255.down_proj.weight" in held
