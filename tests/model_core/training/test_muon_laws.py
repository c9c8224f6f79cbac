"""Muon against its equations by singular values, and which parameter of a real model gets which optimizer and rate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model import Transformer
from model_core.training.groups import parameter_groups, set_rates
from model_core.training.muon import MuonWithAdamW, orthogonal
from model_core.training.schedule import rate_factor
from model_core.training.settings import OptimizationConfig
from tests.model_core.training.in_process import SHAPE

SHAPES = [(4, 9), (9, 4), (6, 6), (2, 3, 8), (1, 7), (5, 1)]


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_singular_values(matrices: Tensor) -> Tensor:
    """Five times the polynomial 3.4445 s − 4.7750 s³ + 2.0315 s⁵ on each singular value, after division by their norm."""
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = values / matrices.double().norm(dim=(-2, -1))[..., None]
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    made: Tensor = left @ torch.diag_embed(values) @ right
    return made.float()


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_moves_singular_values_only(shape: tuple[int, ...]) -> None:
    matrices = random(shape)
    found = orthogonal(matrices)
    assert torch.allclose(found, by_singular_values(matrices), atol=1e-4)
    assert torch.allclose(orthogonal(matrices.mT), found.mT, atol=1e-4)
    assert torch.allclose(orthogonal(37.0 * matrices), found, atol=1e-4), "the size of a gradient does not matter"
    turn = torch.linalg.qr(random((shape[-2], shape[-2]), 1))[0]
    assert torch.allclose(orthogonal(turn @ matrices), turn @ found, atol=1e-4)


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4, 5)).any()


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (3, 8, 2)])
def test_three_steps_of_muon_are_its_equations(shape: tuple[int, ...]) -> None:
    """Momentum as a moving mean, Nesterov's look ahead, an update as tall as it must be, decay apart from it."""
    rate, decay, momentum = 0.05, 0.1, 0.95
    parameter = nn.Parameter(random(shape, 9))
    expected, mean = parameter.detach().clone(), torch.zeros(shape)
    optimizer = MuonWithAdamW([{"params": [parameter], "use_muon": True, "lr": rate}], weight_decay=decay, momentum=momentum)
    for seed in range(3):
        gradient = random(shape, seed)
        parameter.grad = gradient.clone()
        optimizer.step()
        mean = momentum * mean + (1 - momentum) * gradient
        ahead = momentum * mean + (1 - momentum) * gradient
        expected = (1 - rate * decay) * expected - rate * max(1.0, shape[-2] / shape[-1]) ** 0.5 * by_singular_values(ahead)
    assert torch.allclose(parameter, expected, atol=1e-4)


def test_equal_shapes_are_updated_together_as_each_alone_and_one_without_a_gradient_rests() -> None:
    together, alone = ([nn.Parameter(random((4, 6), seed)) for seed in range(3)] for _ in range(2))
    rests = nn.Parameter(torch.ones(4, 6))
    optimizers = [MuonWithAdamW([{"params": [*together, rests], "use_muon": True, "lr": 0.1}], weight_decay=0.5),
                  *(MuonWithAdamW([{"params": [p], "use_muon": True, "lr": 0.1}], weight_decay=0.5) for p in alone)]
    for seed, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.grad, other.grad = random((4, 6), 10 + seed), random((4, 6), 10 + seed)
    for optimizer in optimizers:
        optimizer.step()
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(together, alone, strict=True))
    assert torch.equal(rests, torch.ones(4, 6)) and rests not in optimizers[0].state


def test_clipping_is_by_the_norm_of_all_groups_and_leaves_small_ones() -> None:
    first, second = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))
    optimizer = MuonWithAdamW([{"params": [first], "use_muon": True}, {"params": [second], "use_muon": False}], clip_norm=5.0)
    for factor in (1.0, 0.1):
        first.grad, second.grad = torch.full((2, 2), 4.0 * factor), torch.tensor([6.0, 0.0, 0.0]) * factor
        optimizer.step()
        assert optimizer.last_norm == pytest.approx(10 * factor)
        total = math.hypot(float(first.grad.norm()), float(second.grad.norm()))
        assert total == pytest.approx(min(5.0, 10 * factor), rel=1e-4)


def model(**changes: Any) -> Transformer:
    return Transformer(ModelConfig.parse({**SHAPE, "vocab_size": 11, "num_hidden_layers": 3, **changes}))


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 4, "num_nextn_predict_layers": 1}, {"tie_word_embeddings": True}])
def test_muon_has_the_matrices_of_the_blocks_and_nothing_else(changes: dict[str, Any]) -> None:
    made = model(**changes)
    groups = parameter_groups(made, OptimizationConfig(layer_lr_decay=0.9), "muon")
    names = {id(p): name for name, p in made.named_parameters()}
    under_muon = {names[id(p)] for group in groups if group["use_muon"] for p in group["params"]}
    assert under_muon == {name for name, p in made.named_parameters() if "layers." in name and p.ndim > 1 and "gate.weight" not in name}
    assert "model.layers.1.mlp.experts.down_proj" in under_muon and len(under_muon) > 20
    placed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(names.values())
    assert not [group for group in parameter_groups(made, OptimizationConfig(), "adamw") if group["use_muon"]]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 1.0), st.integers(1, 4), st.integers(0, 1))
def test_each_block_has_the_rate_of_the_one_above_times_the_decay(decay: float, num_blocks: int, num_ahead: int) -> None:
    """The block of multi-token prediction is the top one where there is one; the embedding is below all."""
    made = model(num_hidden_layers=num_blocks, num_nextn_predict_layers=num_ahead)
    settings_ = OptimizationConfig(layer_lr_decay=decay, muon_lr=0.02, adamw_lr=0.001)
    rates = {id(p): group["peak_lr"] for group in parameter_groups(made, settings_, "muon") for p in group["params"]}
    num = num_blocks + num_ahead
    for name, parameter in made.named_parameters():
        is_block = name.startswith("model.layers.")
        below = num - 1 - int(name.split(".")[2]) if is_block else num if "embed" in name else 0
        is_muon = is_block and parameter.ndim > 1 and not name.endswith("mlp.gate.weight")
        assert rates[id(parameter)] == pytest.approx((0.02 if is_muon else 0.001) * decay**below)


def test_split_experts_are_groups_of_their_own_by_the_name_that_deepspeed_gave() -> None:
    made = model()
    for name, parameter in made.named_parameters():
        if "experts." in name and "shared" not in name:
            parameter.group_name = "ep_size_2"  # type: ignore[attr-defined]
    groups = parameter_groups(made, OptimizationConfig(), "adamw")
    assert [(group.get("moe"), group.get("name"), len(group["params"])) for group in groups if "moe" in group] == [(True, "ep_size_2", 4)]


def test_a_frozen_parameter_is_in_no_group() -> None:
    made = model()
    made.lm_head.weight.requires_grad_(False)
    placed = {id(p) for group in parameter_groups(made, OptimizationConfig(), "muon") for p in group["params"]}
    assert id(made.lm_head.weight) not in placed


def test_rates_are_written_from_the_peak_however_often() -> None:
    groups: list[dict[str, Any]] = [{"peak_lr": 0.02, "lr": 5.0}, {"peak_lr": 0.001, "lr": 5.0}]
    for factor in (0.5, 0.25, 1.0):
        assert set_rates(groups, factor) == pytest.approx(0.02 * factor)
        assert [group["lr"] for group in groups] == pytest.approx([0.02 * factor, 0.001 * factor])


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1))
def test_a_rate_rises_to_its_peak_stays_and_falls_to_its_end(total: int, warmup: int, constant: float, final: float) -> None:
    warmup = min(warmup, total)
    factors = [rate_factor(s, total=total, warmup=warmup, constant_fraction=constant, final_fraction=final) for s in range(total)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors) and max(factors) == pytest.approx(1.0)
    assert factors[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    begins = max(warmup, int(total * constant))
    assert factors[warmup:begins] == [1.0] * len(factors[warmup:begins])
    falls = [one - other for one, other in zip(factors[begins:], factors[begins + 1 :], strict=False)]
    assert falls == pytest.approx([falls[0]] * len(falls)) if falls else True
    if total - 1 > begins:
        assert factors[-1] == pytest.approx(final) and factors[begins] == 1.0


@pytest.mark.parametrize(("values", "warmup"), [({"steps": 5}, 5), ({"steps": 500}, 20), ({"steps": 5, "warmup_steps": 2}, 2)])
def test_a_short_phase_warms_up_in_time_when_nothing_is_said(values: dict[str, int], warmup: int) -> None:
    assert OptimizationConfig.model_validate(values).warmup_steps == warmup


@pytest.mark.parametrize(("values", "words"), [
    ({"steps": 5, "warmup_steps": 6}, "warmup_steps is 6 but steps is 5"), ({"layer_lr_decay": 0.0}, "greater than 0"),
    ({"weight_decay": 1.0}, "less than 1"), ({"steps": 0}, "greater than or equal to 1"), ({"optimizer": "sgd"}, "'muon'"),
])
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OptimizationConfig.model_validate(values)
