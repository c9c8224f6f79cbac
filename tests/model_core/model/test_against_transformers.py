"""The published models are transformers' DeepSeek-V2 and V3: same logits and tokens from one directory, both ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from transformers import PreTrainedModel
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from model_core.config import ModelConfig
from model_core.model import Transformer, load_pretrained, save_pretrained
from model_core.planner import count_parameters
from model_core.rollout import Sampler
from tests.model_core.model.random_models import CLASSES, GEOMETRIES, GROUPS, V2, YARN, shape, theirs, tokens

LIMIT = 1e-5


def difference(ours: Transformer, reference: PreTrainedModel) -> float:
    batch = tokens(ours.config)
    with torch.no_grad():
        return float((ours.eval()(batch) - reference.eval()(batch).logits).abs().max())


def loaded_by_them(directory: Path, config: ModelConfig) -> PreTrainedModel:
    reference, info = CLASSES[config.model_type][1].from_pretrained(directory, output_loading_info=True)
    block = f"model.layers.{config.num_hidden_layers}."
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert {name for name in info["unexpected_keys"] if not name.startswith(block)} == set()
    return reference


@pytest.mark.parametrize("name", GEOMETRIES)
def test_their_directory_gives_their_logits_and_tokens_and_ours_gives_them_there(tmp_path: Path, name: str) -> None:
    config = shape(**GEOMETRIES[name])
    reference = theirs(config)
    reference.save_pretrained(tmp_path / "theirs")
    ours = load_pretrained(tmp_path / "theirs")
    assert ours.config == config
    assert difference(ours, reference) <= LIMIT
    save_pretrained(ours, tmp_path / "ours")
    again = loaded_by_them(tmp_path / "ours", config)
    assert difference(ours, again) <= LIMIT
    prompts = tokens(config, rows=6, length=9)
    expected = again.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=24, do_sample=False)[:, 9:].tolist()
    found = Sampler(ours, eos_token_id=-1, pad_token_id=0).generate(prompts.tolist(), max_new_tokens=24, temperature=0.0)
    assert [completions[0].tokens for completions in found] == expected


@st.composite
def geometries(draw: DrawFn) -> ModelConfig:
    """Small shapes of both models, within transformers' limits: V2's heads divide the width, strides are even in its
    rotation and multiples of 16 bytes in its grouped products."""
    heads, per_head = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    num_groups, per_group = draw(st.integers(1, 3)), draw(st.integers(2, 3))
    topk_group = draw(st.integers(1, num_groups))
    is_v2 = draw(st.booleans())
    method = "noaux_tc" if not is_v2 else "group_limited_greedy" if num_groups > 1 else "greedy"
    yarn = st.fixed_dictionaries({
        "factor": st.floats(1.5, 40), "original_max_position_embeddings": st.integers(8, 64),
        "mscale": st.floats(0.1, 2), "mscale_all_dim": st.floats(0.1, 2),
    })  # fmt: skip
    return shape(
        hidden_size=heads * per_head * 8, num_attention_heads=heads, num_hidden_layers=draw(st.integers(1, 2)),
        first_k_dense_replace=draw(st.integers(0, 2)), q_lora_rank=draw(st.none() | st.integers(2, 9)),
        kv_lora_rank=2 * draw(st.integers(1, 5)), qk_nope_head_dim=2 * draw(st.integers(1, 5)),
        qk_rope_head_dim=2 * draw(st.integers(1, 4)), v_head_dim=draw(st.integers(1, 9)),
        n_routed_experts=num_groups * per_group, n_group=num_groups, topk_group=topk_group,
        num_experts_per_tok=draw(st.integers(1, topk_group * per_group)), n_shared_experts=draw(st.integers(1, 3)),
        moe_intermediate_size=8 * draw(st.integers(1, 2)), routed_scaling_factor=draw(st.floats(0.5, 4)),
        scoring_func="softmax" if is_v2 else "sigmoid", topk_method=method, norm_topk_prob=not is_v2 and draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()), rope_scaling=draw(st.just({}) | yarn),
    )  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=geometries(), seed=st.integers(0, 9))
def test_any_shape_crosses_in_both_directions(tmp_path_factory: pytest.TempPathFactory, config: ModelConfig, seed: int) -> None:
    directory, reference = tmp_path_factory.mktemp("crossed"), theirs(config, seed)
    reference.save_pretrained(directory / "theirs")
    ours = load_pretrained(directory / "theirs")
    assert ours.config == config
    save_pretrained(ours, directory / "ours", max_shard_bytes=3000)
    again = load_pretrained(directory / "ours")
    assert again.config == config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert max(difference(ours, reference), difference(ours, loaded_by_them(directory / "ours", config))) <= LIMIT


@pytest.mark.parametrize("changes", [{}, {**GROUPS, "q_lora_rank": 10, "rope_scaling": YARN}])
def test_their_multi_token_prediction_says_what_ours_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """transformers looks for the block only behind 61 layers, so it is told to look behind 3."""
    config = shape(num_nextn_predict_layers=1, **changes)
    torch.manual_seed(3)
    ours = Transformer(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 if parameter.ndim > 1 else torch.rand_like(parameter) + 0.5)
    save_pretrained(ours, tmp_path)
    assert load_pretrained(tmp_path).config == config
    reference = loaded_by_them(tmp_path, config)
    monkeypatch.setattr(reference, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.3.*"])
    drafter, batch = MtpModel.from_pretrained(reference).eval(), tokens(config)
    places_of_next = torch.arange(1, batch.shape[1])[None].expand(len(batch), -1)
    with torch.no_grad():
        known = reference(batch, output_hidden_states=True).hidden_states[-1][:, :-1]
        cache = MtpCache(config=reference.config.get_mtp_config())
        theirs_BTD = drafter.forward_layer(0, known, places_of_next, cache, input_ids=batch[:, 1:])
        ours_BTD = ours.next_hidden(ours.hidden(batch)[0], batch)[:, :-1]
        assert (ours.lm_head(ours_BTD) - reference.lm_head(theirs_BTD)).abs().max() <= LIMIT


def test_their_directory_without_the_block_it_speaks_of_is_a_model_without(tmp_path: Path) -> None:
    config = shape(num_nextn_predict_layers=1)
    reference = theirs(config)
    reference.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    assert ours.next_token_block is None and ours.config == config.model_copy(update={"num_nextn_predict_layers": 0})
    assert difference(ours, reference) <= LIMIT


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


def test_a_tied_head_begins_without_an_opinion() -> None:
    torch.manual_seed(0)
    model = Transformer(shape(tie_word_embeddings=True))
    batch = tokens(model.config, rows=8)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    assert float(loss) == pytest.approx(math.log(61), abs=0.1)


def test_v2_has_no_router_bias() -> None:
    assert not [name for name in Transformer(shape(**V2)).state_dict() if "e_score" in name]
