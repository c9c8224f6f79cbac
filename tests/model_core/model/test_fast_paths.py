"""Each fast path of the model against its slow twin, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model_core.config import ModelConfig, YarnConfig
from model_core.model import Transformer
from model_core.model.attention import LatentAttention
from model_core.model.moe import Experts
from model_core.model.norm import RMSNorm
from model_core.model.packing import Packing
from model_core.model.rope import angles, rotate
from model_core.model.routed import routed
from tests.model_core.reference import plain_model

SMALL = ModelConfig(
    vocab_size=29, hidden_size=24, num_hidden_layers=2, intermediate_size=32, moe_intermediate_size=16, num_attention_heads=3,
    kv_lora_rank=8, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=5, n_routed_experts=5, max_position_embeddings=64,
    num_nextn_predict_layers=1,
)


def same_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor], *, atol: float) -> None:
    weight = torch.randn(fast.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(fast, slow, atol=atol)
    for one, other in zip(torch.autograd.grad((fast * weight).sum(), inputs), torch.autograd.grad((slow * weight).sum(), inputs),
                          strict=True):
        assert torch.allclose(one, other, atol=5 * atol)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=25)
def test_norm(num: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    norm, x = RMSNorm(width, eps=1e-6), torch.randn(2, num, width, requires_grad=True)
    nn.init.normal_(norm.weight)
    same_gradients(norm(x), plain_model.rms_norm(x, norm.weight, 1e-6), [x, norm.weight], atol=2e-5)


def test_norm_keeps_the_precision_of_its_input() -> None:
    x = torch.randn(3, 16, dtype=torch.bfloat16, requires_grad=True)
    norm = RMSNorm(16, eps=1e-6).bfloat16()
    out = norm(x)
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.bfloat16
    assert torch.allclose(out.float(), plain_model.rms_norm(x.float(), norm.weight.float(), 1e-6), atol=2e-2)


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=25)
def test_routed_experts(num_tokens: int, num_chosen: int, seed: int) -> None:
    torch.manual_seed(seed)
    gate_up, down = torch.randn(4, 16, 8, requires_grad=True), torch.randn(4, 8, 8, requires_grad=True)
    x, weights = torch.randn(num_tokens, 8, requires_grad=True), torch.rand(num_tokens, num_chosen, requires_grad=True)
    chosen = torch.stack([torch.randperm(4)[:num_chosen] for _ in range(num_tokens)])
    same_gradients(routed(x, gate_up, down, chosen, weights), plain_model.experts(x, gate_up, down, chosen, weights),
                   [x, gate_up, down, weights], atol=2e-5)


def test_experts_few_tokens_and_many_agree() -> None:
    torch.manual_seed(0)
    experts = Experts(SMALL)
    for parameter in experts.parameters():
        nn.init.normal_(parameter)
    x, weights = torch.randn(7, 24), torch.rand(7, 2)
    chosen = torch.stack([torch.randperm(5)[:2] for _ in range(7)])
    assert torch.allclose(experts._dense(x, chosen, weights), routed(x, experts.gate_up_proj, experts.down_proj, chosen, weights),
                          atol=1e-4)


def test_rotation_turns_each_pair_and_keeps_distances() -> None:
    cos, sin = angles(SMALL)
    x = torch.randn(2, 64, 3, 4)
    turned = rotate(x, cos.expand(2, -1, -1), sin.expand(2, -1, -1))
    assert torch.allclose(turned, plain_model.rotated(x, cos.expand(2, -1, -1), sin.expand(2, -1, -1)), atol=1e-6)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_yarn_of_factor_one_changes_nothing_and_a_larger_one_slows_the_slow_pairs_only() -> None:
    plain, wide = SMALL.model_copy(update={"qk_rope_head_dim": 32}), YarnConfig(factor=8.0, original_max_position_embeddings=64)
    cos, sin = angles(plain)
    scaled = plain.model_copy(update={"rope_scaling": wide})
    cos_scaled, sin_scaled = angles(scaled)
    assert torch.equal(cos, angles(plain.model_copy(update={"rope_scaling": YarnConfig(original_max_position_embeddings=64)}))[0])
    assert torch.allclose(cos[:, 0], cos_scaled[:, 0])
    assert float(sin[63, -1] / sin_scaled[63, -1]) == pytest.approx(8.0, rel=0.01)


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(LENGTHS, st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_packed_attention_keeps_documents_apart(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    attention, packing = LatentAttention(SMALL), Packing.of(lengths)
    x = torch.randn(1, sum(lengths), 24, requires_grad=True)
    cos, sin = (table[packing.positions_1N] for table in angles(SMALL))
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    fast, _latent = attention(x, cos, sin, packing)
    same_gradients(fast, plain_model.masked_attention(attention, x, cos, sin, document), [x, *attention.parameters()], atol=1e-5)


@given(LENGTHS, st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_a_packed_batch_says_what_each_document_alone_does(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    model = Transformer(SMALL).eval()
    documents = [torch.randint(29, (length,)).tolist() for length in lengths]
    tokens = torch.tensor([[token for document in documents for token in document]])
    with torch.no_grad():
        packed, latents = model.hidden(tokens, Packing.of(lengths))
        begin = 0
        for document in documents:
            alone, own = model.hidden(torch.tensor([document]))
            end = begin + len(document)
            assert torch.allclose(packed[:, begin:end], alone, atol=1e-5)
            assert all(torch.allclose(a[:, begin:end], b, atol=1e-5) for a, b in zip(latents, own, strict=True))
            begin = end


def test_logits_at_some_places_are_those_of_all() -> None:
    torch.manual_seed(0)
    model, tokens = Transformer(SMALL).eval(), torch.randint(29, (2, 6))
    with torch.no_grad():
        assert torch.allclose(model(tokens, at_M=torch.tensor([3, 7])), model(tokens).flatten(0, 1)[[3, 7]], atol=1e-6)


def test_multi_token_prediction_is_its_equations_and_sees_no_further_than_the_next_token() -> None:
    torch.manual_seed(0)
    model = Transformer(SMALL).eval()
    documents = [[5, 3, 8, 20, 1], [7, 7, 2]]
    packing, tokens = Packing.of([5, 3]), torch.tensor([[*documents[0], *documents[1]]])
    with torch.no_grad():
        hidden, _latents = model.hidden(tokens, packing)
        fast = model.next_hidden(hidden, tokens, packing)[0]
        assert torch.allclose(fast[:4], plain_model.next_hidden(model, documents[0]), atol=1e-5)
        assert torch.allclose(fast[5:7], plain_model.next_hidden(model, documents[1]), atol=1e-5)
        logits, next_logits = model(tokens, packing=packing, at_M=torch.tensor([0]), next_at_M=torch.tensor([0, 5]))
        assert logits.shape == (1, 29) and torch.allclose(next_logits, model.lm_head(fast[[0, 5]]), atol=1e-6)


def test_multi_token_prediction_teaches_the_whole_model() -> None:
    torch.manual_seed(0)
    model, tokens = Transformer(SMALL), torch.randint(29, (1, 8))
    _logits, next_logits = model(tokens, next_at_M=torch.arange(6))
    next_logits.square().sum().backward()
    untaught = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not untaught
