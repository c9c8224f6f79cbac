"""A student is trained on packed rows as on one row at a time, and is what transformers computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from model_core.causal import DENSE, Student
from model_core.config import ModelConfig
from model_core.training.layouts import Share
from model_core.training.supervised import supervised_passes
from tests.model_core.causal.students import student

EXAMPLES = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10, 11]), ([12, 13], [14])]


def learnt(model: Student, *, max_tokens: int) -> tuple[float, dict[str, Tensor], int]:
    """Loss, gradients and passes of the examples."""
    passes = supervised_passes(EXAMPLES, max_tokens=max_tokens, share=Share(0, 1, is_teller=True), device=torch.device("cpu"))
    losses = [one(model) for one in passes]
    total = torch.stack(losses).sum()
    model.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, len(passes)


@pytest.mark.parametrize("kind", DENSE)
def test_a_packed_batch_teaches_what_its_rows_teach_one_at_a_time(kind: str) -> None:
    model = student(kind)
    together, alone = learnt(model, max_tokens=100), learnt(model, max_tokens=1)
    assert (together[2], alone[2]) == (1, 3)
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    assert together[1].keys() == alone[1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in together[1].items():
        torch.testing.assert_close(gradient, alone[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", DENSE)
def test_it_is_what_transformers_computes(kind: str) -> None:
    model, tokens_BT = student(kind), torch.randint(24, (2, 7), generator=torch.Generator().manual_seed(1))
    maker: Any = AutoModelForCausalLM
    theirs = maker.from_config(model.config.config(), attn_implementation="eager").float()
    theirs.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(tokens_BT), theirs(tokens_BT).logits, rtol=1e-4, atol=1e-5)


def test_logits_are_only_made_where_they_are_asked_for() -> None:
    model, tokens_BT = student(), torch.arange(10).view(2, 5)
    at_M = torch.tensor([1, 7])
    torch.testing.assert_close(model(tokens_BT, at_M=at_M), model(tokens_BT).flatten(0, 1)[at_M])


def test_a_tied_head_is_one_tensor_and_is_trained() -> None:
    model = student(tie_word_embeddings=True)
    assert "lm_head.weight" not in dict(model.named_parameters())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "model.embed_tokens.weight" in learnt(model, max_tokens=100)[1]


def test_its_shape_is_no_shape_of_ours() -> None:
    assert "model_type" not in ModelConfig().resolved(), "a checkpoint's metadata is told apart by it"
