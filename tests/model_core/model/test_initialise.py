"""Fresh weights have the spread that the model's docstring says, and what follows: no opinion, and a stream that does not
grow with depth."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import ModelConfig
from model_core.model import Transformer
from model_core.model.moe import MoE

SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96, "moe_intermediate_size": 32,
    "kv_lora_rank": 24, "q_lora_rank": 40, "num_nextn_predict_layers": 1,
}


def model(seed: int = 0, **changes: Any) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(ModelConfig.parse({**SHAPE, **changes}))


def spread(name: str, parameter: torch.Tensor, num_layers: int) -> float:
    """The standard deviation that a weight of this name must have."""
    if "embed_tokens" in name:
        return 0.5
    if name.endswith(("mlp.gate.weight", "lm_head.weight")):
        return 0.02
    residual = 1 / math.sqrt(2 * num_layers) if "o_proj" in name or "down_proj" in name else 1.0
    return residual / math.sqrt(parameter.shape[-1])


@pytest.mark.parametrize("num_layers", [2, 4])
def test_each_weight_has_its_spread(num_layers: int) -> None:
    """Within five standard errors: of n normal numbers the deviation is known to 1/√(2n) of itself, the mean to 1/√n."""
    made = model(num_hidden_layers=num_layers)
    seen = 0
    for name, parameter in made.named_parameters():
        values = parameter.detach()
        if "norm" in name:
            assert torch.equal(values, torch.ones_like(values))
            continue
        expected, num = spread(name, values, num_layers), values.numel()
        assert float(values.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * num)), name
        assert abs(float(values.mean())) <= 5 * expected / math.sqrt(num), name
        seen += 1
    assert seen == len([name for name, _p in made.named_parameters() if "norm" not in name]) > 30
    assert all(not buffer.any() for name, buffer in made.named_buffers() if "e_score" in name)


def test_a_tied_head_is_drawn_as_a_head() -> None:
    made = model(tie_word_embeddings=True)
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert float(made.lm_head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_experts_of_one_stack_are_not_alike() -> None:
    layer = model().blocks[1].mlp
    assert isinstance(layer, MoE)
    stack = layer.experts.gate_up_proj.detach()
    likeness = torch.corrcoef(stack.flatten(1))
    assert float((likeness - torch.eye(len(stack))).abs().max()) < 0.1


def test_the_seed_decides_every_weight() -> None:
    first, again, other = model(1).state_dict(), model(1).state_dict(), model(2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "norm" not in name and "e_score" not in name)


@pytest.mark.parametrize("num_layers", [1, 8])
def test_the_first_logits_are_near_even_and_the_stream_does_not_grow_with_depth(num_layers: int) -> None:
    made = model(num_hidden_layers=num_layers, num_nextn_predict_layers=0).eval()
    tokens_BT = torch.randint(300, (4, 32), generator=torch.Generator().manual_seed(0))
    streams: list[torch.Tensor] = []
    for block in made.blocks:
        block.register_forward_hook(lambda _block, _inputs, out: streams.append(out[0]))
    with torch.no_grad():
        logits = made(tokens_BT)
    assert float(logits.std()) < 0.3 and float(logits.logsumexp(-1).mean()) == pytest.approx(math.log(300), abs=0.05)
    lengths = [float(stream.square().mean().sqrt()) for stream in streams]
    assert 0.3 < lengths[-1] < 1.5, "what all blocks add together is about as large for any number of them"


def test_a_blank_model_is_what_another_writes_into_it() -> None:
    made = model()
    blank = Transformer(made.config, is_blank=True)
    assert blank.cos.numel() == 0
    blank.load_state_dict(made.state_dict())
    assert [name for name, _p in blank.named_parameters()] == [name for name, _p in made.named_parameters()]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5))
def test_no_token_sees_what_comes_after_it(seed: int, place: int) -> None:
    made = model(seed, num_hidden_layers=2, num_nextn_predict_layers=0, vocab_size=50).eval()
    generator = torch.Generator().manual_seed(seed)
    one = torch.randint(50, (2, 6), generator=generator)
    other = one.clone()
    other[:, place:] = torch.randint(50, (2, 6 - place), generator=generator)
    with torch.no_grad():
        assert torch.allclose(made(one)[:, :place], made(other)[:, :place], atol=1e-5)
        rows = made(one.flip(0)).flip(0)
        assert torch.allclose(rows, made(one), atol=1e-5), "rows of a batch know nothing of one another"
