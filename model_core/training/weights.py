"""The whole weights of a model that is split over ranks, under the names of our own modules.

Sampling, measuring and export want all of them on one rank. ZeRO-3 keeps slices of each weight, AutoEP this rank's
experts under its own names, AutoTP this rank's heads, a pipeline this rank's blocks.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model_core.training.families import MODELS, Model
from model_core.training.tensor import cut_dimension


def is_whole(model: nn.Module) -> TypeGuard[Model]:
    """Whether this rank holds all weights as they are, so that the model can be run by itself."""
    is_cut = any(_is_split(module) or _is_sharded(module) for module in model.modules())
    return isinstance(model, MODELS) and not is_cut and not any(hasattr(p, "ds_id") for p in model.parameters())


@torch.no_grad()
def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The complete state dict on every rank; all must call it when the model is split. Tensors may be shared."""
    state = _own_state(model)
    for path, layer in model.named_modules():
        if _is_split(layer):
            own = {name: state.pop(f"{path}.{name}") for name in list(_names(state, path))}
            state.update({f"{path}.{name}": tensor for name, tensor in _layer_state(layer, own).items()})
        elif _is_sharded(layer) and (dim := cut_dimension(f"{path}.weight")) is not None:
            state[f"{path}.weight"] = _joined(state[f"{path}.weight"], layer.mp_group, dim)
    return state if isinstance(model, MODELS) else _of_all_stages(state)


def _is_split(layer: nn.Module) -> bool:
    """Whether AutoEP made it of an expert layer."""
    return bool(getattr(layer, "_is_autoep_layer", False))


def _is_sharded(layer: nn.Module) -> bool:
    """Whether AutoTP made it of a projection."""
    return hasattr(layer, "tp_world_size")


def _own_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with what ZeRO-3 has cut put together again, weight by weight."""
    state = dict(model.state_dict())
    cut = {name: p for name, p in model.named_parameters(remove_duplicate=False) if hasattr(p, "ds_id")}
    if not cut:
        return state
    from deepspeed.runtime.zero import GatheredParameters

    for name, parameter in cut.items():
        with GatheredParameters([parameter]):
            state[name] = parameter.detach().clone()
    return state


def _of_all_stages(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the stages of a pipeline hold together; each weight comes from the first rank that has it."""
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in own.items()}
    everybody: list[dict[str, tuple[tuple[int, ...], torch.dtype]]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(everybody, shapes)
    device = next(iter(own.values())).device
    state = {}
    for name in dict.fromkeys(name for one in everybody for name in one):
        owner = next(rank for rank, one in enumerate(everybody) if name in one)
        shape, dtype = everybody[owner][name]
        is_mine = owner == dist.get_rank()
        tensor = own[name].contiguous() if is_mine else torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(tensor, src=owner)
        state[name] = tensor
    return state


def _names(state: dict[str, Tensor], path: str) -> list[str]:
    return [key[len(path) + 1 :] for key in state if key.startswith(path + ".")]


def _layer_state(layer: nn.Module, own: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {name: tensor for name, tensor in own.items() if name.startswith("shared_experts.")}
    result["gate.weight"] = own["router.gate.weight"]
    if "router.e_score_correction_bias" in own:
        result["gate.e_score_correction_bias"] = own["router.e_score_correction_bias"]
    group = layer.ep_group
    gate, down, up = (_joined(own[f"experts.{name}"], group, 0) for name in ("w1", "w2", "w3"))  # type: ignore[arg-type]
    result["experts.gate_up_proj"] = torch.cat([gate, up], dim=1)
    result["experts.down_proj"] = down
    return result


def _joined(mine: Tensor, group: dist.ProcessGroup, dim: int) -> Tensor:
    """The parts of all ranks of `group`, one after the other along `dim`."""
    parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, mine.contiguous(), group=group)
    return torch.cat(parts, dim=dim)
