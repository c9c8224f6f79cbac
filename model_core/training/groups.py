"""Which parameter gets which optimizer, learning rate and decay: the groups that DeepSpeed takes with the optimizer.

Layer-wise rates are in `model_core.config.rates`. Peak rates stand in `peak_lr`; `set_rates` writes `lr` from it before
each step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, Protocol

import torch
from torch import nn

from model_core.config.rates import rate_factor_of
from model_core.training.muon import MuonWithAdamW
from model_core.training.settings import OptimizationConfig
from model_core.training.world import World

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")


class OptimizerMaker(Protocol):
    """What `build_optimizer` is; another one serves to compare layouts without an optimizer that hides scales."""

    def __call__(
        self, model: nn.Module, settings: OptimizationConfig, kind: Literal["muon", "adamw"], *, clip_norm: float
    ) -> torch.optim.Optimizer: ...


def build_optimizer(
    model: nn.Module, settings: OptimizationConfig, kind: Literal["muon", "adamw"], *, clip_norm: float
) -> torch.optim.Optimizer:
    """The optimizer over `model`; `clip_norm` is used by ours, 0 where DeepSpeed clips."""
    groups = parameter_groups(model, settings, kind)
    if kind == "muon" or clip_norm:
        return MuonWithAdamW(groups, weight_decay=settings.weight_decay, clip_norm=clip_norm)
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=settings.weight_decay)


def parameter_groups(
    model: nn.Module, settings: OptimizationConfig, kind: Literal["muon", "adamw"]
) -> list[dict[str, Any]]:
    """Groups by (optimizer, expert or not, factor of the rate), in a fixed order. Every trainable parameter is in exactly one."""
    shape: Any = model.config
    groups: dict[tuple[bool, str, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        use_muon = kind == "muon" and is_matrix(name, parameter)
        expert_group = getattr(parameter, "group_name", "")
        factor = rate_factor_of(name, shape, layer_lr_decay=settings.layer_lr_decay, lr_factors=settings.lr_factors)
        peak = settings.muon_lr if use_muon else settings.adamw_lr
        group = groups.setdefault((use_muon, expert_group, factor), {
            "params": [], "use_muon": use_muon, "peak_lr": peak * factor, "lr": peak,
            **({"moe": True, "name": expert_group} if expert_group else {}),
        })
        group["params"].append(parameter)
    return list(groups.values())


def with_equal_numbers(optimizer: torch.optim.Optimizer, world: World) -> torch.optim.Optimizer:
    """Cuts groups in two until every rank has as many: DeepSpeed's norm sums over a pipeline group by group, and a stage
    with fewer groups than another would leave it waiting for ever."""
    groups = optimizer.param_groups
    for _ in range(max(world.gather(len(groups))) - len(groups)):
        largest = max(groups, key=lambda group: len(group["params"]))
        half = len(largest["params"]) // 2
        assert half, "a stage has fewer parameters than another has groups"
        groups.append({**largest, "params": largest["params"][half:]})
        largest["params"] = largest["params"][:half]
    return optimizer


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon may have it: a matrix, or a stack of them, inside a block; not the router, whose rows are few."""
    return parameter.ndim >= 2 and _BLOCK.match(name) is not None and not name.endswith("mlp.gate.weight")


def set_rates(groups: Iterable[dict[str, Any]], factor: float) -> float:
    """Writes each group's rate for this step; returns the highest one."""
    highest = 0.0
    for group in groups:
        group["lr"] = group["peak_lr"] * factor
        highest = max(highest, group["lr"])
    return highest
