"""The published model is transformers' DeepseekV3: same logits from the same directory, in both directions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from model_core.config import ModelConfig
from model_core.errors import CheckpointError
from model_core.model import Transformer, count_parameters, load_pretrained, save_pretrained

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "q_lora": {"q_lora_rank": 24},
    "groups": {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 2.5},
    "tied": {"tie_word_embeddings": True},
    "wide_heads": {"qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 20, "n_shared_experts": 2},
}


def shape(**changes: Any) -> ModelConfig:
    base = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 40, "max_position_embeddings": 64}
    return ModelConfig.parse(base | changes)


def theirs(config: ModelConfig) -> DeepseekV3ForCausalLM:
    torch.manual_seed(5)
    model = DeepseekV3ForCausalLM(
        DeepseekV3Config(**config.resolved(), num_key_value_heads=config.num_attention_heads, head_dim=config.qk_rope_head_dim)
    ).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.15)
    return model


@pytest.mark.parametrize("name", GEOMETRIES)
def test_their_directory_gives_their_logits(tmp_path: Path, name: str) -> None:
    reference = theirs(shape(**GEOMETRIES[name]))
    reference.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path).eval()
    tokens = torch.randint(0, 97, (9, 40))
    with torch.no_grad():
        assert (ours(tokens) - reference(tokens).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("name", GEOMETRIES)
def test_our_directory_gives_our_logits_there(tmp_path: Path, name: str) -> None:
    ours = Transformer(shape(**GEOMETRIES[name])).eval()
    save_pretrained(ours, tmp_path)
    reference, info = DeepseekV3ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.randint(0, 97, (3, 40))
    with torch.no_grad():
        assert (ours(tokens) - reference.eval()(tokens).logits).abs().max() <= 1e-5


def test_dense_and_grouped_experts_agree() -> None:
    torch.manual_seed(0)
    experts = next(m for m in Transformer(shape()).modules() if type(m).__name__ == "Experts")
    x, chosen = torch.randn(200, 64), torch.stack([torch.randperm(8)[:2] for _ in range(200)])
    weights = torch.rand(200, 2)
    with torch.no_grad():
        assert torch.allclose(experts._dense(x, chosen, weights), experts._grouped(x, chosen, weights), atol=2e-6)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_counted_parameters_are_those_of_the_model(name: str) -> None:
    config = shape(**GEOMETRIES[name])
    assert count_parameters(config)[0] == sum(p.numel() for p in Transformer(config).parameters())


def test_the_published_shape_counts_671b_and_37b() -> None:
    """Source: DeepSeek-V3 technical report, abstract."""
    published = ModelConfig(
        vocab_size=129280, hidden_size=7168, num_hidden_layers=61, first_k_dense_replace=3, intermediate_size=18432,
        moe_intermediate_size=2048, num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128,
        qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8, n_group=8,
        topk_group=4, max_position_embeddings=4096,
    )  # fmt: skip
    total, active = count_parameters(published)
    assert f"{total:.3g}" == "6.71e+11" and round(active / 1e9) == 37


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "model.safetensors").unlink(), "lacks the weights file"),
        (lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-100]), "damaged"),
        (lambda d: (d / "modeling.py").write_text(""), "code and pickled"),
        (lambda d: (d / "pytorch_model.bin").write_bytes(b""), "code and pickled"),
        (lambda d: (d / "config.json").write_text('{"model_type": "deepseek_v3", "auto_map": {}}'), "auto_map"),
        (lambda d: (d / "config.json").write_text('{"model_type": "llama"}'), "llama"),
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "config.json").write_text("[]"), "a list, not an object"),
        (lambda d: _set(d, rope_interleave=False), "rope_interleave is False"),
        (lambda d: _set(d, hidden_act="gelu"), "hidden_act is 'gelu'"),
        (lambda d: _set(d, scoring_func="softmax"), "scoring_func is 'softmax'"),
        (lambda d: _set(d, topk_method="greedy"), "topk_method is 'greedy'"),
        (lambda d: _set(d, attention_bias=True), "attention_bias is True"),
        (lambda d: _set(d, moe_layer_freq=2), "moe_layer_freq is 2"),
        (lambda d: _set(d, num_key_value_heads=1), "num_key_value_heads is 1"),
        (lambda d: _set(d, quantization_config={"quant_method": "fp8"}), "quantized"),
    ],
)
def test_what_cannot_be_trusted_is_refused(tmp_path: Path, damage: Any, words: str) -> None:
    save_pretrained(Transformer(shape()), tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(tmp_path)


def _set(directory: Path, **values: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_tied_head_begins_without_an_opinion() -> None:
    torch.manual_seed(0)
    model, tokens = Transformer(shape(tie_word_embeddings=True)), torch.randint(0, 97, (8, 40))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(97), abs=0.1)


def test_a_bad_tensor_is_named(tmp_path: Path) -> None:
    model = Transformer(shape())
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[3, 0, 0] = float("nan")
    save_pretrained(model, tmp_path)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\.down_proj holds NaN"):
        load_pretrained(tmp_path)
