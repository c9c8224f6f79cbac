"""The whole weights of a model whose experts may be split over ranks, under the names of our own modules.

Sampling, measuring and export want every expert; AutoEP keeps only this rank's, under its own names.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_split(model: nn.Module) -> bool:
    """Whether AutoEP replaced the expert layers."""
    return any(getattr(module, "_is_autoep_layer", False) for module in model.modules())


@torch.no_grad()
def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The complete state dict on every rank; all must call it when experts are split. Tensors may be shared."""
    state = dict(model.state_dict())
    for path, layer in model.named_modules():
        if getattr(layer, "_is_autoep_layer", False):
            own = {name: state.pop(f"{path}.{name}") for name in list(_names(state, path))}
            state.update({f"{path}.{name}": tensor for name, tensor in _layer_state(layer, own).items()})
    return state


def _names(state: dict[str, Tensor], path: str) -> list[str]:
    return [key[len(path) + 1 :] for key in state if key.startswith(path + ".")]


def _layer_state(layer: nn.Module, own: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {name: tensor for name, tensor in own.items() if name.startswith("shared_experts.")}
    result["gate.weight"] = own["router.gate.weight"]
    result["gate.e_score_correction_bias"] = own["router.e_score_correction_bias"]
    gate, down, up = (_all_experts(layer, own[f"experts.{name}"]) for name in ("w1", "w2", "w3"))
    result["experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
    result["experts.down_proj"] = down
    return result


def _all_experts(layer: nn.Module, mine: Tensor) -> Tensor:
    group = layer.ep_group
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]  # type: ignore[arg-type]
    dist.all_gather(parts, mine.contiguous(), group=group)
    return torch.cat(parts)
