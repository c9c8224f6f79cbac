"""The fast decoder against its slow twin: every shape, one and several new tokens, rows that stand still or move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.model import Transformer
from model_core.rollout import decoder as decoding
from model_core.rollout import experts as ways
from model_core.rollout.batch import padded
from model_core.rollout.cache import LatentCache
from model_core.rollout.decoder import Decoder
from model_core.rollout.experts import Mixture, Wide
from tests.model_core.reference.plain_decoding import PlainDecoder
from tests.model_core.reference.plain_model import experts as plain_experts
from tests.model_core.rollout.shapes import PAD, SHAPES, VOCABULARY, made, named, prompts

LIMIT = 1e-5


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def filled(model: Transformer, given: list[list[int]], num_tokens: int = 48) -> LatentCache:
    """A cache that holds the prompts, as the model itself reads them."""
    cache = LatentCache(model, len(given), num_tokens)
    for row, prompt in enumerate(given):
        alone = LatentCache(model, 1, len(prompt))
        alone.fill(model.hidden(torch.tensor([prompt]))[1], torch.tensor([len(prompt)]))
        cache.take(torch.tensor([row]), alone, torch.tensor([0]))
    return cache


def steps(num_rows: int, num_steps: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (num_steps, num_rows), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_equals_the_plain_decoder(name: str) -> None:
    model, given = named(name), prompts(5)
    decoder, cache, plain = Decoder(model), filled(model, given), PlainDecoder(model, given, 48)
    for tokens_B in steps(5, 6):
        assert (decoder.step(cache, tokens_B[:, None])[:, 0] - plain.step(tokens_B)).abs().max() <= LIMIT


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_are_read_alike_in_both_ways(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, given = named(name), prompts(5)
    decoder, (tokens_BT, lengths_B) = Decoder(model), padded(given, PAD, torch.device("cpu"))
    short, long = LatentCache(model, 5, 12), LatentCache(model, 5, 12)
    hidden_BTD, place = decoder.read(short, tokens_BT, lengths_B)
    monkeypatch.setattr(decoding, "READ_UP_TO_TOKENS", 0)
    expected_BTD, unknown = decoder.read(long, tokens_BT, lengths_B)
    assert place is not None and unknown is None
    for row, length in enumerate(lengths_B.tolist()):
        assert (hidden_BTD - expected_BTD)[row, :length].abs().max() <= LIMIT
        for mine, theirs in zip(short.layers, long.layers, strict=True):
            assert (mine - theirs)[row, :length].abs().max() <= LIMIT
    assert torch.equal(short.filled_B, long.filled_B) and short.longest == long.longest


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    num_groups, per_group = draw(st.integers(1, 2)), draw(st.integers(2, 4))
    topk_group = draw(st.integers(1, num_groups))
    return {
        "hidden_size": 8 * draw(st.integers(1, 4)), "num_attention_heads": draw(st.integers(1, 3)),
        "first_k_dense_replace": draw(st.integers(0, 2)), "q_lora_rank": draw(st.none() | st.integers(2, 9)),
        "kv_lora_rank": draw(st.integers(1, 12)), "qk_nope_head_dim": draw(st.integers(1, 9)),
        "qk_rope_head_dim": 2 * draw(st.integers(1, 4)), "v_head_dim": draw(st.integers(1, 9)),
        "n_routed_experts": num_groups * per_group, "n_group": num_groups, "topk_group": topk_group,
        "num_experts_per_tok": draw(st.integers(1, topk_group * per_group)), "n_shared_experts": draw(st.integers(0, 2)),
        "moe_intermediate_size": 8, "intermediate_size": 24, "tie_word_embeddings": draw(st.booleans()),
    }  # fmt: skip


@settings(max_examples=30, deadline=None, derandomize=True)
@given(changes=geometries(), num_rows=st.integers(1, 4), seed=st.integers(0, 9))
def test_any_geometry_equals_the_plain_decoder(changes: dict[str, Any], num_rows: int, seed: int) -> None:
    model, given = made(seed, **changes), prompts(num_rows, seed)
    decoder, cache, plain = Decoder(model), filled(model, given), PlainDecoder(model, given, 48)
    for tokens_B in steps(num_rows, 2):
        assert (decoder.step(cache, tokens_B[:, None])[:, 0] - plain.step(tokens_B)).abs().max() <= LIMIT


@pytest.mark.parametrize("name", ["plain", "q_lora", "not_absorbed"])
def test_several_new_tokens_equal_one_after_another(name: str) -> None:
    model, given, tokens_TB = named(name), prompts(4), steps(4, 3)
    decoder, together, singly = Decoder(model), filled(model, given), filled(model, given)
    logits_BTV = decoder.step(together, tokens_TB.t())
    for place, tokens_B in enumerate(tokens_TB):
        assert (decoder.step(singly, tokens_B[:, None])[:, 0] - logits_BTV[:, place]).abs().max() <= LIMIT
    assert torch.equal(together.filled_B, singly.filled_B) and together.longest == singly.longest


def test_a_row_that_does_not_grow_disturbs_none_and_goes_on_later() -> None:
    model, given, tokens_TB = named("plain"), prompts(3), steps(3, 4)
    decoder, cache, plain = Decoder(model), filled(model, given), PlainDecoder(model, given, 48)
    expected = [plain.step(tokens_B) for tokens_B in tokens_TB]
    decoder.step(cache, tokens_TB[0][:, None])
    still_B = torch.tensor([True, False, True])
    wrong_B = torch.where(still_B, tokens_TB[1], 39)
    logits_BV = decoder.step(cache, wrong_B[:, None], still_B)[:, 0]
    assert (logits_BV - expected[1])[still_B].abs().max() <= LIMIT
    late_BV = decoder.step(cache, tokens_TB[1][:, None], ~still_B)[:, 0]
    assert (late_BV - expected[1])[1].abs().max() <= LIMIT
    assert (decoder.step(cache, tokens_TB[2][:, None])[:, 0] - expected[2]).abs().max() <= LIMIT


def test_a_row_may_be_moved() -> None:
    model, given, tokens_TB = named("plain"), prompts(4), steps(4, 2)
    decoder, cache, plain = Decoder(model), filled(model, given), PlainDecoder(model, given, 48)
    expected = plain.step(tokens_TB[0])
    cache.take(torch.tensor([0, 1]), cache, torch.tensor([1, 3]))
    cache.measure(2)
    assert cache.longest == max(len(given[1]), len(given[3]))
    assert (decoder.step(cache, tokens_TB[0][[1, 3], None])[:, 0] - expected[[1, 3]]).abs().max() <= LIMIT


def test_bfloat16_decodes_as_its_plain_twin() -> None:
    model = made().bfloat16()
    model.cos, model.sin = named("plain").cos, named("plain").sin
    decoder, cache, tokens_B = Decoder(model), filled(model, prompts(4)), steps(4, 1)[0]
    expected = Decoder(named("plain")).step(filled(named("plain"), prompts(4)), tokens_B[:, None])
    logits_BTV = decoder.step(cache, tokens_B[:, None])
    assert logits_BTV.dtype == torch.bfloat16
    assert (logits_BTV.float() - expected).abs().mean() <= 0.05 * expected.std()


@pytest.mark.parametrize("name", ["plain", "no_shared"])
@pytest.mark.parametrize("num_tokens", [1, 2, 9])
def test_experts_one_by_one_grouped_and_wide_agree(name: str, num_tokens: int) -> None:
    moe = named(name).blocks[1].mlp
    x_ND, mixture = torch.randn(num_tokens, 64), Mixture(moe.experts)
    chosen_NK, weights_NK = torch.rand(num_tokens, 8).topk(3, dim=1).indices, torch.rand(num_tokens, 3)
    gate_up, down = moe.experts.gate_up_proj, moe.experts.down_proj
    expected_ND = plain_experts(x_ND, gate_up, down, chosen_NK, weights_NK)
    for way in (mixture.grouped, mixture.one_by_one, mixture):
        assert (way(x_ND, chosen_NK, weights_NK) - expected_ND).abs().max() <= LIMIT
    expected_ND += 0 if moe.shared_experts is None else moe.shared_experts(x_ND)
    wide_ND = torch.zeros_like(x_ND)
    Wide(moe).add(wide_ND, x_ND, chosen_NK, weights_NK)
    assert (wide_ND - expected_ND).abs().max() <= LIMIT


@pytest.mark.parametrize("num_rows", [1, 5])
def test_a_layer_that_is_not_wide_decodes_alike(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> None:
    model, given, tokens_TB = named("groups"), prompts(num_rows), steps(num_rows, 2)
    wide, cache = Decoder(model), filled(model, given)
    expected = [wide.step(cache, tokens_B[:, None]) for tokens_B in tokens_TB]
    monkeypatch.setattr(ways, "WIDE_UP_TO_NUMBERS", 0)
    narrow, cache = Decoder(model), filled(model, given)
    for tokens_B, logits_BTV in zip(tokens_TB, expected, strict=True):
        assert (narrow.step(cache, tokens_B[:, None]) - logits_BTV).abs().max() <= LIMIT
