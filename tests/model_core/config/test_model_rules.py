"""Shapes of the model: a gate is possible exactly when enough experts can be reached, and each range is refused at its field."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import PRESETS, ModelConfig, StrictModel, YarnConfig, preset
from model_core.errors import ConfigError

SOFTMAX = {"scoring_func": "softmax", "topk_method": "group_limited_greedy", "norm_topk_prob": False}


def can_choose(num_experts: int, top_k: int, num_groups: int, num_chosen_groups: int) -> bool:
    """The obvious gate: experts in equal groups, some of the groups, top-k of the experts within them."""
    groups = [list(range(start, num_experts, num_groups)) for start in range(num_groups)]
    if len({len(group) for group in groups}) > 1 or num_chosen_groups > num_groups or [] in groups:
        return False
    return all(sum(map(len, chosen)) >= top_k for chosen in itertools.combinations(groups, num_chosen_groups))


@pytest.mark.parametrize("gate", [{}, SOFTMAX])
def test_a_gate_is_taken_exactly_when_enough_experts_can_be_reached(gate: dict[str, Any]) -> None:
    for shape in itertools.product(range(1, 7), range(1, 5), range(1, 5), range(1, 4)):
        values = dict(zip(("n_routed_experts", "num_experts_per_tok", "n_group", "topk_group"), shape, strict=True))
        try:
            ModelConfig.parse({**values, **gate})
        except ConfigError as error:
            assert not can_choose(*shape), (values, error)
            assert any(f"{name} {value}" in error.message or f"{name} is {value}" in error.message for name, value in values.items())
        else:
            assert can_choose(*shape), values


@pytest.mark.parametrize(("values", "words"), [
    ({"scoring_func": "softmax", "norm_topk_prob": False}, "sigmoid goes with noaux_tc, softmax with greedy or group_limited_greedy"),
    ({"topk_method": "greedy"}, "scoring_func is sigmoid but topk_method is greedy"),
    ({**SOFTMAX, "norm_topk_prob": True}, "norm_topk_prob must be false"),
    ({**SOFTMAX, "topk_method": "greedy", "n_group": 2}, "n_group is 2 .* choose group_limited_greedy"),
    ({"num_experts_per_tok": 9}, "num_experts_per_tok is 9 but n_routed_experts is 8: .* lower the first or raise the second"),
    ({"n_group": 3}, "n_routed_experts 8 must divide by n_group 3"), ({"topk_group": 2}, "topk_group 2 must not exceed n_group 1"),
    ({"n_group": 4, "num_experts_per_tok": 3}, "1 of 4 groups hold only 2 experts; lower it or raise topk_group"),
    ({"rope_scaling": {"beta_slow": 32.0}}, r"beta_slow 32.0 must be less than beta_fast 32.0"),
])
def test_a_rule_between_fields_says_what_goes_together(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        ModelConfig.parse(values, prefix="model")
    assert refused.value.field.startswith("model.rope_scaling" if "rope_scaling" in values else "model")


@pytest.mark.parametrize(("field", "value"), [
    ("vocab_size", -1), ("hidden_size", 100), ("hidden_size", 0), ("num_hidden_layers", 0), ("first_k_dense_replace", -1),
    ("intermediate_size", 0), ("moe_intermediate_size", 12), ("num_attention_heads", 0), ("q_lora_rank", 0), ("kv_lora_rank", 0),
    ("qk_nope_head_dim", 0), ("qk_rope_head_dim", 3), ("v_head_dim", 0), ("n_routed_experts", 0), ("n_shared_experts", -1),
    ("num_experts_per_tok", 0), ("scoring_func", "relu"), ("topk_method", "random"), ("n_group", 0), ("topk_group", 0),
    ("routed_scaling_factor", 0), ("rms_norm_eps", 0.0), ("rope_theta", -1.0), ("max_position_embeddings", 7),
    ("num_nextn_predict_layers", 2), ("tie_word_embeddings", None), ("rope_scaling.factor", 0.5),
    ("rope_scaling.original_max_position_embeddings", 7), ("rope_scaling.beta_fast", 0), ("rope_scaling.mscale", -1),
])
def test_a_value_out_of_range_is_refused_at_its_field(field: str, value: Any) -> None:
    name, _, inner = field.partition(".")
    with pytest.raises(ConfigError) as refused:
        ModelConfig.parse({name: {inner: value} if inner else value})
    assert refused.value.field == field and repr(value) in refused.value.message


@pytest.mark.parametrize("config", [ModelConfig, YarnConfig])
def test_every_number_has_a_range_and_every_field_an_explanation(config: type[StrictModel]) -> None:
    for name, field in config.model_fields.items():
        assert field.description, name
        assert field.metadata or field.annotation not in {int, float, int | None}, f"{name} has no range"


@settings(deadline=None)
@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 40), st.booleans(), st.floats(1, 64))
def test_a_shape_comes_back_from_what_is_stored(name: str, num_layers: int, tied: bool, factor: float) -> None:
    changed = {"num_hidden_layers": num_layers, "tie_word_embeddings": tied, "rope_scaling": {"factor": factor}}
    config = ModelConfig.parse({**PRESETS[name], **changed})
    assert ModelConfig.parse(config.resolved()) == config


def test_the_gates_are_those_of_the_two_architectures() -> None:
    assert {name: preset(name).model_type for name in PRESETS} == {
        name: "deepseek_v2" if name == "v2_lite" else "deepseek_v3" for name in PRESETS}
    sizes = [preset(name).hidden_size * preset(name).num_hidden_layers for name in PRESETS]
    assert sizes == sorted(sizes), "presets go from small to large"
