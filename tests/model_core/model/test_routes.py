"""Routes of tokens: causal, of different experts, weighted as the gate says, steered by its bias; loads that add up."""

from __future__ import annotations

import pytest
import torch

from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.model.moe import MoE
from model_core.model.routes import loads_of, routes_of
from tests.model_core.model.random_models import shape

TOKENS = [3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7]


def model(**changes: object) -> Transformer:
    torch.manual_seed(1)
    return Transformer(shape(**{"n_routed_experts": 8, "num_experts_per_tok": 3, **changes}))


def test_every_token_goes_to_different_experts_with_the_weights_of_its_gate() -> None:
    made = model(routed_scaling_factor=2.5, norm_topk_prob=True)
    routes = routes_of(made, TOKENS)
    assert len(routes.experts_LTK) == sum(isinstance(block.mlp, MoE) for block in made.blocks)
    for chosen_TK, weights_TK in zip(routes.experts_LTK, routes.weights_LTK, strict=True):
        assert len(chosen_TK) == len(TOKENS)
        for chosen_K, weights_K in zip(chosen_TK, weights_TK, strict=True):
            assert len(set(chosen_K)) == 3 and weights_K == sorted(weights_K, reverse=True)
            assert sum(weights_K) == pytest.approx(2.5, abs=1e-3)


def test_what_comes_later_changes_no_route() -> None:
    made = model()
    whole, part = routes_of(made, TOKENS), routes_of(made, TOKENS[:6])
    assert [layer[:6] for layer in whole.experts_LTK] == part.experts_LTK


def test_a_bias_brings_every_token_and_its_absence_none() -> None:
    made = model()
    for block in made.blocks:
        if isinstance(block.mlp, MoE) and block.mlp.gate.e_score_correction_bias is not None:
            block.mlp.gate.e_score_correction_bias[5] = 100.0
            block.mlp.gate.e_score_correction_bias[2] = -100.0
    for chosen_TK in routes_of(made, TOKENS).experts_LTK:
        assert all(5 in chosen_K and 2 not in chosen_K for chosen_K in chosen_TK)


def test_loads_are_shares_of_all_choices() -> None:
    made = model()
    texts = [routes_of(made, TOKENS), routes_of(made, TOKENS[:4])]
    for layer, loads_E in enumerate(loads_of(texts, 8)):
        assert sum(loads_E) == pytest.approx(1, abs=1e-4)
        chosen = [expert for one in texts for chosen_K in one.experts_LTK[layer] for expert in chosen_K]
        assert loads_E[3] == pytest.approx(chosen.count(3) / len(chosen), abs=1e-4)


def test_a_gate_that_knows_nothing_is_undecided_and_looking_leaves_no_trace() -> None:
    made = model()
    for block in made.blocks:
        if isinstance(block.mlp, MoE):
            block.mlp.gate.weight.data.zero_()
    made.train()
    assert all(value == 1.0 for row in routes_of(made, TOKENS).entropy_LT for value in row)
    assert made.training and not any(block.mlp.gate._forward_hooks for block in made.blocks if isinstance(block.mlp, MoE))


def test_a_model_without_experts_and_a_text_that_does_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="no experts"):
        routes_of(model(first_k_dense_replace=3), TOKENS)
    with pytest.raises(ConfigError, match="context is 64"):
        routes_of(model(), [1] * 65)
