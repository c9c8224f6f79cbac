"""Layer-wise learning rates: each factor moves its own weights and no others, and the plot shows what the optimizer gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.config import PRESETS, preset
from model_core.config.rates import KINDS, RateFactors, kind_of, part_rates
from model_core.errors import ConfigError
from model_core.model import Transformer
from model_core.training.groups import parameter_groups
from model_core.training.settings import OptimizationConfig
from tests.model_core.training.test_switches import loss_of, made


def step_of(model: Transformer, **values: Any) -> dict[str, Tensor]:
    """How far one plain gradient step moves each weight."""
    optimization = OptimizationConfig.model_validate({"adamw_lr": 0.5, **values})
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    groups = parameter_groups(model, optimization, "adamw")
    torch.optim.SGD([{**group, "lr": group["peak_lr"]} for group in groups]).step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_scales_the_steps_of_its_kind_and_of_no_other(kind: str) -> None:
    shape = {"num_nextn_predict_layers": 1, "q_lora_rank": 8}
    plain, scaled = step_of(made(**shape)), step_of(made(**shape), lr_factors={kind: 0.25})
    of_kind = {name for name in plain if kind_of(name, is_tied=False) == kind}
    assert of_kind
    for name, moved in plain.items():
        expected = moved * (0.25 if name in of_kind else 1.0)
        # the step is taken off a weight of size up to 1: both are right to that rounding
        assert torch.allclose(scaled[name], expected, rtol=0, atol=2**-23), name
    if kind != "mtp":  # its loss is not in this step
        assert any(float(plain[name].abs().max()) > 1e-6 for name in of_kind)


def test_a_factor_of_zero_freezes_a_kind() -> None:
    moved = step_of(made(), lr_factors={"embedding": 0.0, "router": 0.0})
    still = {name for name, step in moved.items() if not step.any()}
    assert still == {name for name in moved if kind_of(name, is_tied=False) in {"embedding", "router"}}


def test_the_decay_scales_the_steps_block_by_block() -> None:
    plain, scaled = step_of(made()), step_of(made(), layer_lr_decay=0.5)
    for name, moved in plain.items():
        below = 2 - int(name.split(".")[2]) if ".layers." in name else 3 if "embed" in name else 0
        assert torch.allclose(scaled[name], moved * 0.5**below, rtol=0, atol=2**-23), name


@settings(max_examples=12, deadline=None)
@given(
    decay=st.floats(0.3, 1.0), factors=st.fixed_dictionaries({kind: st.floats(0, 3) for kind in KINDS}),
    shape=st.fixed_dictionaries({
        "num_hidden_layers": st.integers(1, 3), "first_k_dense_replace": st.integers(0, 4), "n_shared_experts": st.integers(0, 1),
        "num_nextn_predict_layers": st.integers(0, 1), "tie_word_embeddings": st.booleans(), "q_lora_rank": st.sampled_from([None, 4]),
    }),
)  # fmt: skip
def test_the_plot_shows_the_rates_that_the_optimizer_gets(decay: float, factors: dict[str, float], shape: dict[str, Any]) -> None:
    model = made(**shape)
    optimization = OptimizationConfig.model_validate({"layer_lr_decay": decay, "lr_factors": factors, "adamw_lr": 1.0})
    shown = {(one.part, one.kind): one.factor for one in part_rates(
        model.config, layer_lr_decay=decay, lr_factors=optimization.lr_factors)}
    rates = {id(p): group["peak_lr"] for group in parameter_groups(model, optimization, "adamw") for p in group["params"]}
    used = {}
    for name, parameter in model.named_parameters():
        part = f"block {name.split('.')[2]}" if ".layers." in name else "embedding" if "embed_tokens" in name else "head"
        used[part, kind_of(name, is_tied=model.config.tie_word_embeddings)] = rates[id(parameter)]
    assert shown == pytest.approx(used)


def test_names_of_split_experts_mean_the_same() -> None:
    names = {
        "model.layers.1.mlp.router.gate.weight": "router", "model.layers.1.mlp.experts.w1": "experts",
        "model.layers.1.mlp.shared_experts.up_proj.weight": "mlp", "model.layers.0.mlp.gate_proj.weight": "mlp",
        "lm_head.weight": "head", "model.norm.weight": "norm", "model.layers.0.self_attn.kv_a_layernorm.weight": "norm",
    }
    assert {name: kind_of(name, is_tied=False) for name in names} == names
    assert kind_of("lm_head.weight", is_tied=True) == "embedding"


@pytest.mark.parametrize("name", PRESETS)
def test_without_factors_every_part_of_every_preset_has_the_whole_rate(name: str) -> None:
    shown = part_rates(preset(name), layer_lr_decay=1.0, lr_factors=RateFactors())
    assert {one.factor for one in shown} == {1.0}
    assert shown[0].part == "embedding" and shown[-1].part == "head"


def test_factors_out_of_range_are_refused_at_their_field() -> None:
    for values, field in (({"router": -1.0}, "lr_factors.router"), ({"gate": 1.0}, "lr_factors.gate"), ({"head": 1e9}, "lr_factors.head")):
        with pytest.raises(ConfigError) as refused:
            OptimizationConfig.parse({"lr_factors": values})
        assert refused.value.field == field
