"""Equal expert loads without an auxiliary loss: after each update the routing bias moves towards the idle experts.

Works on our own layers and on those that AutoEP put in their place. Letters: L expert layers, E experts.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2: the bias falls by γ for an overloaded expert, else rises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model_core.training.world import World


class ExpertBalance:
    """The expert layers of a model, seen as loads and biases."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        self._layers = [m for m in model.modules() if _is_moe(m)]
        self._gates = [_gate(layer) for layer in self._layers]
        for gate in self._gates:
            # 16-bit engines cast it too, and then steps of 0.001 are lost in rounding.
            gate.e_score_correction_bias.data = gate.e_score_correction_bias.data.float()

    def reset(self) -> None:
        """Forgets the loads counted so far (those of sampling, for example)."""
        for layer in self._layers:
            _counts(layer).zero_()

    @torch.no_grad()
    def take_loads(self) -> Tensor:
        """Tokens per expert since the last reset, over all ranks, and resets. Shape LE; (0, 0) without experts."""
        if not self._layers:
            return torch.zeros(0, 0)
        loads_LE = torch.stack([_counts(layer).detach().float() for layer in self._layers])
        self.reset()
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
    return isinstance(getattr(module, "tokens_per_expert", None), Tensor)


def _gate(layer: nn.Module) -> Any:
    """Where the bias lives: `router` in AutoEP's layer, `gate` in ours."""
    return layer.router if getattr(layer, "_is_autoep_layer", False) else layer.gate


def _counts(layer: nn.Module) -> Tensor:
    counts: Tensor = layer.tokens_per_expert  # type: ignore[assignment]
    return counts
