"""The gate chooses and weighs experts as its papers say, expert by expert and group by group."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import ModelConfig
from model_core.model.moe import MLP, Gate, MoE
from tests.model_core.reference.plain_model import experts as plain_experts

HIDDEN, NUM_TOKENS = 16, 5
SOFTMAX: dict[str, Any] = {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False}
GROUPED: dict[str, Any] = {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 3}
KINDS: dict[str, dict[str, Any]] = {
    "v3": {}, "v3 grouped": GROUPED, "v3 not normalised": {"norm_topk_prob": False, "routed_scaling_factor": 2.5},
    "v2": SOFTMAX, "v2 grouped": {**SOFTMAX, **GROUPED, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0},
}


def gate(seed: int = 0, **changes: Any) -> Gate:
    torch.manual_seed(seed)
    made = Gate(ModelConfig.parse({"hidden_size": HIDDEN, "n_routed_experts": 8, "num_experts_per_tok": 2, **changes}))
    torch.nn.init.normal_(made.weight)
    if made.e_score_correction_bias is not None:
        made.e_score_correction_bias.normal_(0, 0.3)
    return made


def tokens(seed: int = 1, num: int = NUM_TOKENS) -> torch.Tensor:
    return torch.randn(num, HIDDEN, generator=torch.Generator().manual_seed(seed))


def chosen_of(made: Gate, x_TD: torch.Tensor) -> list[dict[int, float]]:
    """For each token its experts with their weights."""
    weights_TK, chosen_TK = made(x_TD)
    return [dict(zip(chosen, weights, strict=True)) for chosen, weights in zip(chosen_TK.tolist(), weights_TK.tolist(), strict=True)]


def by_the_paper(made: Gate, x_D: torch.Tensor) -> dict[int, float]:
    """DeepSeek-V3, equations 12 to 16, and V2, section 2.2, in plain numbers."""
    c, num = made.config, made.config.n_routed_experts
    logits = [float(made.weight.detach()[expert].double() @ x_D.double()) for expert in range(num)]
    if c.scoring_func == "sigmoid":
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    else:
        scores = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
    bias = made.e_score_correction_bias
    choice = scores if bias is None else [score + float(bias[expert]) for expert, score in enumerate(scores)]
    groups = [range(first, first + num // c.n_group) for first in range(0, num, num // c.n_group)]
    best = 2 if c.topk_method == "noaux_tc" else 1
    ranked = sorted(groups, key=lambda group: -sum(sorted((choice[expert] for expert in group), reverse=True)[:best]))
    allowed = [expert for group in (ranked[: c.topk_group] if c.n_group > 1 else groups) for expert in group]
    chosen = sorted(allowed, key=lambda expert: -choice[expert])[: c.num_experts_per_tok]
    total = sum(scores[expert] for expert in chosen) if c.norm_topk_prob else 1.0
    return {expert: scores[expert] / total * c.routed_scaling_factor for expert in chosen}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_every_gate_is_that_of_its_paper(kind: str, seed: int) -> None:
    made, x_TD = gate(seed, **KINDS[kind]), tokens(seed)
    for x_D, found in zip(x_TD, chosen_of(made, x_TD), strict=True):
        assert found == pytest.approx(by_the_paper(made, x_D), abs=1e-5)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    num_groups, per_group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    topk_group = draw(st.integers(1, num_groups))
    return {"n_routed_experts": num_groups * per_group, "n_group": num_groups, "topk_group": topk_group,
            "num_experts_per_tok": draw(st.integers(1, topk_group * per_group)), "norm_topk_prob": draw(st.booleans()),
            "routed_scaling_factor": draw(st.floats(0.5, 4))}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes(), st.integers(0, 99))
def test_choices_are_distinct_within_few_groups_and_their_weights_sum_as_told(shape: dict[str, Any], seed: int) -> None:
    made = gate(seed, **shape)
    per_group = shape["n_routed_experts"] // shape["n_group"]
    for found in chosen_of(made, tokens(seed)):
        assert len(found) == shape["num_experts_per_tok"], "no expert twice"
        assert len({expert // per_group for expert in found}) <= shape["topk_group"]
        assert all(weight > 0 for weight in found.values())
        if shape["norm_topk_prob"]:
            assert sum(found.values()) == pytest.approx(shape["routed_scaling_factor"], rel=1e-5)


def test_the_bias_steers_the_choice_and_never_the_weight() -> None:
    made, x_TD = gate(norm_topk_prob=False), tokens(num=40)
    assert made.e_score_correction_bias is not None
    scores_TE = made.scores(x_TD)
    made.e_score_correction_bias.zero_()
    plain = chosen_of(made, x_TD)
    made.e_score_correction_bias += 0.7
    assert chosen_of(made, x_TD) == plain, "the same for all is the same as none"
    made.e_score_correction_bias.zero_()
    made.e_score_correction_bias[3], made.e_score_correction_bias[5] = 2.0, -2.0
    steered = chosen_of(made, x_TD)
    assert all(3 in found and 5 not in found for found in steered) and any(3 not in found for found in plain)
    for token, found in enumerate(steered):
        assert found == pytest.approx({expert: float(scores_TE[token, expert].detach()) for expert in found}, abs=1e-6)


def test_a_group_is_ranked_by_its_two_best_in_v3_and_by_its_best_in_v2() -> None:
    """Group 0 has one strong expert, group 1 two of middling strength."""
    shape = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 1}
    for kind, group in (({}, 1), ({**SOFTMAX, "topk_method": "group_limited_greedy"}, 0)):
        made = gate(**shape, **kind)
        if made.e_score_correction_bias is not None:
            made.e_score_correction_bias.zero_()
        with torch.no_grad():
            made.weight.zero_()
            made.weight[:, 0] = torch.tensor([2.0, -9.0, 1.5, 1.4])
        (found,) = chosen_of(made, torch.eye(1, HIDDEN))
        assert next(iter(found)) // 2 == group


@pytest.mark.parametrize("kind", ["v3", "v2"])
def test_numbering_the_experts_anew_numbers_the_choices_anew(kind: str) -> None:
    made, x_TD, order = gate(**KINDS[kind]), tokens(), torch.randperm(8, generator=torch.Generator().manual_seed(3))
    before = chosen_of(made, x_TD)
    with torch.no_grad():
        made.weight.copy_(made.weight[order])
    if made.e_score_correction_bias is not None:
        made.e_score_correction_bias.copy_(made.e_score_correction_bias[order])
    after = chosen_of(made, x_TD)
    for old, new in zip(before, after, strict=True):
        assert {int(order[expert]): weight for expert, weight in new.items()} == pytest.approx(old, abs=1e-6)


def test_softmax_scores_share_one_and_sigmoid_scores_do_not() -> None:
    x_TD = tokens()
    assert torch.allclose(gate(**SOFTMAX).scores(x_TD).sum(dim=1), torch.ones(NUM_TOKENS), atol=1e-6)
    made = gate()
    before = made.scores(x_TD)
    with torch.no_grad():
        made.weight[0] += 1.0
    assert torch.equal(made.scores(x_TD)[:, 1:], before[:, 1:]), "an expert's score is its own"
    assert gate(**SOFTMAX).e_score_correction_bias is None and "e_score_correction_bias" not in gate(**SOFTMAX).state_dict()


def test_scores_are_float32_whatever_the_model_is() -> None:
    made, x_TD = gate().bfloat16(), tokens().bfloat16()
    assert made.scores(x_TD).dtype == torch.float32
    assert torch.equal(made.scores(x_TD), (x_TD.float() @ made.weight.float().t()).sigmoid())


def test_only_what_was_chosen_teaches_an_expert_and_the_weights_teach_the_gate() -> None:
    config = ModelConfig.parse({"hidden_size": HIDDEN, "moe_intermediate_size": 8})
    torch.manual_seed(0)
    layer = MoE(config)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x_TD = tokens(num=3)
    layer(x_TD[None]).square().sum().backward()
    used = {expert for found in chosen_of(layer.gate, x_TD) for expert in found}
    assert layer.experts.down_proj.grad is not None and layer.gate.weight.grad is not None
    taught = {expert for expert in range(8) if layer.experts.down_proj.grad[expert].any()}
    assert taught == used and len(used) < 8 and bool(layer.gate.weight.grad.any())


@pytest.mark.parametrize("changes", [{}, {"n_shared_experts": 0}, {"n_shared_experts": 2, "routed_scaling_factor": 2.5}])
def test_a_layer_is_its_shared_experts_and_the_weighted_chosen_ones(changes: dict[str, Any]) -> None:
    config = ModelConfig.parse({"hidden_size": HIDDEN, "moe_intermediate_size": 8, **changes})
    torch.manual_seed(0)
    layer = MoE(config)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x_BTD = torch.randn(2, 3, HIDDEN)
    with torch.no_grad():
        weights_TK, chosen_TK = layer.gate(x_BTD.flatten(0, 1))
        expected = plain_experts(x_BTD.flatten(0, 1), layer.experts.gate_up_proj, layer.experts.down_proj, chosen_TK, weights_TK)
        expected = expected.view_as(x_BTD)
        if config.n_shared_experts:
            assert isinstance(layer.shared_experts, MLP) and layer.shared_experts.gate_proj.out_features == 8 * config.n_shared_experts
            expected = expected + layer.shared_experts(x_BTD)
        assert torch.allclose(layer(x_BTD), expected, atol=1e-5)
