"""One optimizer for a whole model: Muon on the matrices of the blocks, AdamW on everything else.

It needs whole matrices, so it runs where every rank holds all weights and gradients (ZeRO stage 0, float32). DeepSpeed
hands it the averaged gradients; it clips them by their global norm itself, because DeepSpeed's stage 0 clips without
telling the norm. Where optimizer states are sharded, `groups` builds torch's AdamW instead.

Source: K. Jordan, "Muon: an optimizer for hidden layers" (2024); update scaled by sqrt(max(1, rows / columns)).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


class MuonWithAdamW(torch.optim.Optimizer):
    """Groups carry `use_muon`; a group of matrices may hold stacks of them (experts), each is updated by itself."""

    def __init__(
        self, groups: list[dict[str, Any]], *, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8, weight_decay: float = 0.0, clip_norm: float = 0.0,
    ) -> None:
        defaults = {"lr": 0.0, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)
        self.clip_norm = clip_norm
        self.last_norm = 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clips, then updates every parameter that has a gradient. A non-finite gradient changes nothing."""
        assert closure is None
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self.last_norm = float(norm)
        if not torch.isfinite(norm):
            return
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        for group in self.param_groups:
            (self._muon if group["use_muon"] else self._adamw)(group)

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            directions = torch.stack([self._direction(p, group["momentum"]) for p in parameters])
            scale = max(1.0, shape[-2] / shape[-1]) ** 0.5
            for parameter, update in zip(parameters, orthogonal(directions), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum_buffer"], momentum)

    def _adamw(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
            state["step"] += 1
            state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
            mean_scale, square_scale = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
            denominator = (state["exp_avg_sq"] / square_scale).sqrt_().add_(group["eps"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["exp_avg"], denominator, value=-group["lr"] / mean_scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between about 0.7 and 1.2.

    Shapes: (…, rows, columns), each matrix by itself.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if is_tall else x
    return result
