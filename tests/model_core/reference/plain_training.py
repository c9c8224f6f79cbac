"""Training as one reads it in a paper: one process, one forward pass over the whole batch, SGD, no DeepSpeed.

Slow twin of `model_core.training.engine` with `balance`, `groups` and `supervised`, whatever the layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_core.model import Transformer
from model_core.model.moe import MoE

Example = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Recipe:
    """What one run of five steps is made of."""

    lr: float
    layer_lr_decay: float
    clip_norm: float
    bias_speed: float
    factors: Mapping[str, float] = field(default_factory=dict)
    """Factors of the rate by a part of a weight's name."""


def train(model: Transformer, batches: Sequence[Sequence[Example]], recipe: Recipe) -> tuple[list[float], list[float]]:
    """Trains in place; the loss and the norm of the gradient before clipping, step by step."""
    routed = _record_routing(model)
    losses, norms = [], []
    for batch in batches:
        model.zero_grad()
        routed.clear()
        loss = _mean_loss(model, batch)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)).item()
        scale = min(1.0, recipe.clip_norm / norm)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    factor = math.prod(factor for part, factor in recipe.factors.items() if part in name)
                    rate = recipe.lr * factor * recipe.layer_lr_decay ** _depth(name, model)
                    parameter -= rate * scale * parameter.grad
            _move_biases(routed, recipe.bias_speed)
        losses.append(loss.item())
        norms.append(norm)
    return losses, norms


def _mean_loss(model: Transformer, batch: Sequence[Example]) -> Tensor:
    """Mean of -log p over all completion tokens, each sequence by itself."""
    total, count = torch.zeros(()), 0
    for prompt, completion in batch:
        tokens = torch.tensor([prompt + completion])
        logprobs_TV = model(tokens[:, :-1])[0].log_softmax(dim=-1)
        for position in range(len(prompt) - 1, tokens.shape[1] - 1):
            total = total - logprobs_TV[position, tokens[0, position + 1]]
            count += 1
    return total / count


def _depth(name: str, model: Transformer) -> int:
    """How many blocks a weight is below the top one; the embedding is below all."""
    num = model.config.num_hidden_layers
    if name.startswith("model.layers."):
        return num - 1 - int(name.split(".")[2])
    return num if name.startswith("model.embed_tokens") else 0


def _record_routing(model: Transformer) -> list[tuple[MoE, Tensor]]:
    """The experts chosen in every forward pass, sequence after sequence, until the list is cleared."""
    routed: list[tuple[MoE, Tensor]] = []
    for layer in model.modules():
        if isinstance(layer, MoE):
            layer.gate.register_forward_hook(lambda _gate, _inputs, out, layer=layer: routed.append((layer, out[1])))
    return routed


def _move_biases(routed: list[tuple[MoE, Tensor]], speed: float) -> None:
    layers = list(dict.fromkeys(layer for layer, _chosen in routed))
    for layer in layers:
        loads = [0] * layer.gate.config.n_routed_experts
        for _layer, chosen_TK in (one for one in routed if one[0] is layer):
            for token in chosen_TK.tolist():
                for expert in token:
                    loads[expert] += 1
        mean = sum(loads) / len(loads)
        for expert, load in enumerate(loads) if layer.gate.e_score_correction_bias is not None else ():
            layer.gate.e_score_correction_bias[expert] += speed * ((load < mean) - (load > mean))
