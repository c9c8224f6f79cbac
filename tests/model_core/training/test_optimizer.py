"""Muon, AdamW, the groups and the schedule."""

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from model_core.config import ModelConfig
from model_core.training.groups import build_optimizer, parameter_groups, set_rates, with_equal_numbers
from model_core.training.muon import MuonWithAdamW, orthogonal
from model_core.training.schedule import rate_factor
from model_core.training.settings import OptimizationConfig
from model_core.training.world import World


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig(num_hidden_layers=3)
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(5, 4)
        self.model.layers = nn.ModuleList(nn.ModuleDict({"proj": nn.Linear(4, 4)}) for _ in range(3))
        self.lm_head = nn.Linear(4, 5, bias=False)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16), (3, 12, 20)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.3 and values.max() < 1.3


def test_a_stack_is_updated_like_its_matrices() -> None:
    gradients = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    stack = nn.Parameter(torch.zeros(3, 6, 4))
    singles = [nn.Parameter(torch.zeros(6, 4)) for _ in range(3)]
    for parameters, gradient in (([stack], [gradients]), (singles, list(gradients))):
        optimizer = MuonWithAdamW([{"params": parameters, "use_muon": True, "lr": 0.1}])
        for _ in range(2):
            for parameter, values in zip(parameters, gradient, strict=True):
                parameter.grad = values.clone()
            optimizer.step()
    assert torch.allclose(stack, torch.stack([p.detach() for p in singles]), atol=1e-6)


def test_adamw_equals_torchs() -> None:
    parameters = [nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    ours = MuonWithAdamW([{"params": [parameters[0]], "use_muon": False, "lr": 0.01}], weight_decay=0.1)
    theirs = torch.optim.AdamW([parameters[1]], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(4, 3, generator=generator)
        for parameter, optimizer in zip(parameters, (ours, theirs), strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert torch.allclose(parameters[0], parameters[1], atol=1e-6)


def test_norm_is_told_and_clipped_and_a_nan_changes_nothing() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = MuonWithAdamW([{"params": [parameter], "use_muon": False, "lr": 1.0}], clip_norm=1.0)
    parameter.grad = torch.full((4,), 3.0)
    optimizer.step()
    assert optimizer.last_norm == pytest.approx(6.0)
    assert parameter.grad.norm() == pytest.approx(1.0)
    before = parameter.detach().clone()
    parameter.grad = torch.full((4,), float("nan"))
    optimizer.step()
    assert torch.equal(parameter, before)


def test_every_parameter_is_in_one_group_and_rates_fall_downwards() -> None:
    model = Tiny()
    settings = OptimizationConfig(layer_lr_decay=0.5, muon_lr=0.02, adamw_lr=0.001)
    groups = parameter_groups(model, settings, "muon")
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in model.parameters())
    rates = {id(p): g["peak_lr"] for g in groups for p in g["params"]}
    assert [rates[id(layer["proj"].weight)] for layer in model.model.layers] == [0.005, 0.01, 0.02]  # type: ignore[index]
    assert [rates[id(layer["proj"].bias)] for layer in model.model.layers] == [0.00025, 0.0005, 0.001]  # type: ignore[index]
    assert rates[id(model.lm_head.weight)] == 0.001
    assert rates[id(model.model.embed_tokens.weight)] == 0.000125  # type: ignore[union-attr]


def test_sharded_states_get_torchs_adamw() -> None:
    optimizer = build_optimizer(Tiny(), OptimizationConfig(), "adamw", clip_norm=0.0)
    assert type(optimizer) is torch.optim.AdamW
    assert set_rates(optimizer.param_groups, 0.5) == pytest.approx(0.0015)


def test_schedule_warms_up_stays_and_falls() -> None:
    factors = [rate_factor(s, total=100, warmup=10, constant_fraction=0.5, final_fraction=0.1) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[50] == 1.0
    assert factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert rate_factor(0, total=1, warmup=0, constant_fraction=0.5, final_fraction=0.1) == 1.0


class OfMore(World):
    """A world in which another rank has five groups."""

    def gather(self, value: Any) -> list[Any]:
        return [value, 5]


def test_a_stage_gets_as_many_groups_as_the_others_and_the_same_rates() -> None:
    model = Tiny()
    settings = OptimizationConfig(layer_lr_decay=0.5, adamw_lr=1.0)
    optimizer = build_optimizer(model, settings, "adamw", clip_norm=0.0)
    before = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    cut = with_equal_numbers(optimizer, OfMore(rank=0, size=2, device=torch.device("cpu")))
    after = [(id(p), group["peak_lr"]) for group in cut.param_groups for p in group["params"]]
    assert len(cut.param_groups) == 5 and all(group["params"] for group in cut.param_groups)
    assert dict(after) == before and len(after) == len(before)


def test_a_tied_head_has_the_rate_of_the_embedding_wherever_it_is() -> None:
    model = Tiny()
    model.config = ModelConfig(num_hidden_layers=3, tie_word_embeddings=True)
    groups = parameter_groups(model, OptimizationConfig(layer_lr_decay=0.5, adamw_lr=1.0), "adamw")
    rates = {name: group["peak_lr"] for group in groups for name, p in model.named_parameters() if any(p is q for q in group["params"])}
    assert rates["lm_head.weight"] == rates["model.embed_tokens.weight"] == 0.5**3


def test_an_optimizer_does_not_load_the_compiler() -> None:
    code = (
        "import sys, torch; from model_core.training.world import without_compiler; without_compiler();"
        "torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).zero_grad(); print('torch._dynamo' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "False"
