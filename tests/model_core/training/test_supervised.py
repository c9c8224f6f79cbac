"""The supervised loss is the mean over the completion tokens of the batch, whatever is packed, split or shared out."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.config import ModelConfig
from model_core.model import Transformer
from model_core.training.layouts import Share
from model_core.training.supervised import SupervisedPass, supervised_passes
from tests.model_core.reference import plain_model
from tests.model_core.reference.plain_training import Example, _mean_loss
from tests.model_core.training.in_process import SHAPE
from tests.model_core.training.ranks import CPU

VOCABULARY, WEIGHT = 17, 0.3
TOKEN = st.integers(0, VOCABULARY - 1)
EXAMPLES = st.lists(st.tuples(st.lists(TOKEN, min_size=1, max_size=5), st.lists(TOKEN, min_size=1, max_size=7)), min_size=1, max_size=6)


@cache
def model(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.parse({**SHAPE, "vocab_size": VOCABULARY, **changes}))


def passes_of_all(examples: list[Example], *, max_tokens: int, size: int, mtp_weight: float = 0.0) -> list[SupervisedPass]:
    return [one for rank in range(size) for one in supervised_passes(
        examples, max_tokens=max_tokens, share=Share(rank, size, is_teller=True), device=CPU, mtp_weight=mtp_weight)]


def gradient(of: Transformer, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(of.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(EXAMPLES, st.integers(1, 60), st.integers(1, 3))
def test_any_split_has_the_loss_and_gradient_of_the_plain_mean(examples: list[Example], max_tokens: int, size: int) -> None:
    expected = _mean_loss(model(), examples)
    losses = [one(model()) for one in passes_of_all(examples, max_tokens=max_tokens, size=size)]
    total = torch.stack(losses).sum()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert torch.allclose(gradient(model(), total), gradient(model(), expected), atol=1e-5)


def plain_ahead(of: Transformer, examples: list[Example]) -> Tensor:
    """Cross-entropy of the token after the next on completion tokens, place by place, over all completion tokens."""
    total = torch.zeros(())
    for prompt, completion in examples:
        tokens = prompt + completion
        hidden_TD = plain_model.next_hidden(of, tokens[:-1]) if len(tokens) > 2 else None
        for place in range(max(len(prompt), 2), len(tokens)):
            assert hidden_TD is not None
            total = total + F.cross_entropy(of.lm_head(hidden_TD[place - 2]), torch.tensor(tokens[place]))
    return total / sum(len(completion) for _prompt, completion in examples)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(EXAMPLES, st.integers(1, 60), st.integers(1, 3))
def test_multi_token_prediction_is_added_by_its_weight_and_told_by_itself(
    examples: list[Example], max_tokens: int, size: int
) -> None:
    ahead = model(num_nextn_predict_layers=1)
    expected = plain_ahead(ahead, examples)
    passes = passes_of_all(examples, max_tokens=max_tokens, size=size, mtp_weight=WEIGHT)
    total = torch.stack([one(ahead) for one in passes]).sum()
    assert sum(one.mtp_loss for one in passes) == pytest.approx(float(expected.detach()), abs=1e-4)
    whole = _mean_loss(ahead, examples) + WEIGHT * expected
    assert torch.allclose(gradient(ahead, total), gradient(ahead, whole), atol=2e-5)


@settings(deadline=None)
@given(EXAMPLES, st.integers(1, 60), st.integers(1, 4))
def test_every_share_has_as_many_passes_and_what_does_not_count_routes_nothing(
    examples: list[Example], max_tokens: int, size: int
) -> None:
    each = [supervised_passes(examples, max_tokens=max_tokens, share=Share(rank, size, True), device=CPU) for rank in range(size)]
    assert len({len(passes) for passes in each}) == 1
    together, num_targets = [one for passes in each for one in passes], sum(len(completion) for _prompt, completion in examples)
    for one in together:
        mask = one.given["attention_mask"]
        assert mask.shape == one.tokens.shape and bool(mask.all()) == (one.fraction > 0)
    counted = [one for one in together if one.fraction]
    assert sum(one.batch.targets_M.numel() for one in counted) == num_targets
    assert {one.fraction for one in counted} == {1 / num_targets}
