"""Parameters are counted from the configuration as the built model has them, part by part."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from model_core.config import ModelConfig, ParallelConfig, preset
from model_core.model import Transformer
from model_core.planner import blocks_of_stages, count_parameters, parameters
from model_core.planner.device import held

GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {}, "q_lora": {"q_lora_rank": 24}, "tied": {"tie_word_embeddings": True}, "dense": {"first_k_dense_replace": 3},
    "experts_only": {"first_k_dense_replace": 0}, "no_shared": {"n_shared_experts": 0}, "two_shared": {"n_shared_experts": 2},
    "next_token": {"num_nextn_predict_layers": 1}, "dense_next_token": {"num_nextn_predict_layers": 1, "first_k_dense_replace": 4},
    "softmax": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
}  # fmt: skip


def shape(**changes: Any) -> ModelConfig:
    return ModelConfig.parse({"vocab_size": 97, "v_head_dim": 20, **changes})


def part_of(name: str, config: ModelConfig) -> str:
    """The planner's part of a parameter of the model."""
    if name.startswith(f"model.layers.{config.num_hidden_layers}."):
        return "next_token"
    marks = {
        "embed_tokens": "head" if config.tie_word_embeddings else "embedding", "lm_head": "head", "norm": "norms",
        "self_attn": "attention", "shared_experts": "shared_experts", "mlp.experts": "routed_experts", "mlp.gate.": "router",
    }  # fmt: skip
    return next((part for mark, part in marks.items() if mark in name), "dense_mlp")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_each_part_is_that_of_the_model(name: str) -> None:
    config = shape(**GEOMETRIES[name])
    built: Counter[str] = Counter()
    for path, parameter in Transformer(config).named_parameters():
        built[part_of(path, config)] += parameter.numel()
    counted = parameters(config)
    assert {part: number for part, number in counted.by_part().items() if number} == dict(built)
    assert count_parameters(config)[0] == counted.total == built.total() - built["next_token"]


def test_deepseek_v3_has_671_billion_and_37_active() -> None:
    """Source: DeepSeek-V3 technical report, abstract."""
    total, active = count_parameters(preset("v3_671b"))
    assert f"{total / 1e9:.3g}" == "671" and f"{active / 1e9:.2g}" == "37"


def test_active_are_those_of_a_model_with_only_the_chosen_experts() -> None:
    config = shape()
    chosen = config.model_copy(update={"n_routed_experts": config.num_experts_per_tok})
    routers = config.n_routed_experts - config.num_experts_per_tok
    missing = 2 * routers * config.hidden_size + 97 * config.hidden_size
    assert count_parameters(config)[1] == count_parameters(chosen)[0] - 97 * config.hidden_size * 2 + missing


@pytest.mark.parametrize("num_stages", [1, 2, 3])
def test_stages_hold_the_model_together(num_stages: int) -> None:
    config = shape()
    stages = [parameters(config, blocks) for blocks in blocks_of_stages(config.num_hidden_layers, num_stages)]
    assert sum(stage.total for stage in stages) == count_parameters(config)[0]


@pytest.mark.parametrize(("layout", "num_sharers"), [({"expert": 2}, 1), ({"expert": 4}, 1), ({"expert": 1}, 4)])
def test_experts_are_split_and_the_rest_is_not(layout: dict[str, int], num_sharers: int) -> None:
    config = shape(num_nextn_predict_layers=1)
    whole = held(config, ParallelConfig(), range(3))
    device = held(config, ParallelConfig(num_processes=4, **layout), range(3))
    assert device.dense == whole.dense and device.experts * layout["expert"] == whole.experts
    assert device.expert_sharers * layout["expert"] == device.dense_sharers == 4
