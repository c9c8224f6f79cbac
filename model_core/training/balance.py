"""Equal expert loads without an auxiliary loss: after each update the routing bias moves towards the idle experts.

Loads are counted where the router has chosen, in our own layers and in those that AutoEP put in their place alike, and
only of tokens under the `attention_mask` of a forward pass: padding, sampling, and what is computed again in the backward
pass are no load. Letters: L expert layers, T tokens, K chosen experts, E experts.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2: the bias falls by γ for an overloaded expert, else rises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model_core.model.moe import MoE
from model_core.training.world import World


class ExpertBalance:
    """The expert layers of a model, seen as loads and biases."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        self._gates = [_gate(layer) for layer in model.modules() if _is_moe(layer)]
        self._real_T: Tensor | None = None
        self._loads: list[Tensor] = []
        for place, gate in enumerate(self._gates):
            # 16-bit engines cast it too, and then steps of 0.001 are lost in rounding.
            gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()
            self._loads.append(torch.zeros_like(gate.e_score_correction_bias))
            gate.register_forward_hook(lambda _gate, _inputs, routed, place=place: self._count(place, routed[1]))
        if self._gates:
            model.register_forward_pre_hook(self._begin, with_kwargs=True)
            model.register_forward_hook(self._end, always_call=True)

    @torch.no_grad()
    def take_loads(self) -> Tensor:
        """Tokens per expert since the last call, over all ranks. Shape LE; (0, 0) without experts."""
        if not self._gates:
            return torch.zeros(0, 0)
        loads_LE = torch.stack(self._loads)
        for loads_E in self._loads:
            loads_E.zero_()
        return self._world.sum(loads_LE).cpu()

    @torch.no_grad()
    def move(self, loads_LE: Tensor, speed: float) -> None:
        """Moves each bias by `speed` against its expert's overload."""
        for gate, loads_E in zip(self._gates, loads_LE, strict=True):
            bias_E = gate.e_score_correction_bias
            bias_E.add_(torch.sign(loads_E.mean() - loads_E).to(bias_E), alpha=speed)

    def biases(self) -> list[list[float]]:
        """The routing bias, by layer and expert."""
        return [gate.e_score_correction_bias.detach().float().tolist() for gate in self._gates]

    def _begin(self, _model: nn.Module, _inputs: Any, given: dict[str, Any]) -> None:
        mask_BT = given.get("attention_mask")
        self._real_T = None if mask_BT is None else mask_BT.flatten().float()

    def _end(self, _model: nn.Module, _inputs: Any, _logits: Any) -> None:
        self._real_T = None

    @torch.no_grad()
    def _count(self, place: int, chosen_TK: Tensor) -> None:
        if self._real_T is not None:
            real_TK = self._real_T[:, None].expand_as(chosen_TK)
            self._loads[place].scatter_add_(0, chosen_TK.flatten(), real_TK.flatten())


def load_metrics(loads_LE: Tensor, biases: list[list[float]]) -> dict[str, float]:
    """The `moe/…` scalars; none when no token was routed."""
    if not loads_LE.numel() or not loads_LE.sum():
        return {}
    relative_LE = loads_LE / loads_LE.mean(dim=1, keepdim=True)
    return {
        "moe/max_vio": float(relative_LE.amax(dim=1).max() - 1),
        "moe/load_cv": float(relative_LE.std(dim=1, correction=0).mean()),
        "moe/bias_norm": float(torch.tensor(biases).norm(dim=1).mean()),
    }


def load_event(loads_LE: Tensor, biases: list[list[float]]) -> dict[str, Any]:
    """Payload of an `experts` event, without its step."""
    shares_LE = loads_LE / loads_LE.sum(dim=1, keepdim=True).clamp_min(1)
    relative_LE = shares_LE * shares_LE.shape[1]
    return {
        "layers": _rounded(shares_LE.tolist()), "bias": _rounded(biases),
        "max_violation": [round(v, 4) for v in (relative_LE.amax(dim=1) - 1).tolist()],
    }


def _rounded(rows: list[list[float]]) -> list[list[float]]:
    return [[round(value, 5) for value in row] for row in rows]


def _is_moe(module: nn.Module) -> bool:
    return isinstance(module, MoE) or bool(getattr(module, "_is_autoep_layer", False))


def _gate(layer: nn.Module) -> Any:
    """Where experts are chosen and the bias lives: `router` in AutoEP's layer, `gate` in ours."""
    return layer.router if getattr(layer, "_is_autoep_layer", False) else layer.gate
