"""Which experts the tokens of a text are sent to, read from the gates while the model looks at the text once.

Letters: L layers with experts, T tokens, E experts, K chosen experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model_core.errors import ConfigError
from model_core.model.moe import MoE
from model_core.model.transformer import Transformer


@dataclass(frozen=True)
class Routes:
    """Of one text: experts and their weights, the heaviest first, and how undecided each gate was (1: all experts alike)."""

    experts_LTK: list[list[list[int]]]
    weights_LTK: list[list[list[float]]]
    entropy_LT: list[list[float]]


@torch.no_grad()
def routes_of(model: Transformer, tokens: Sequence[int]) -> Routes:
    """The routes of a text's tokens. Raises ConfigError for a model without experts and for a text that does not fit."""
    layers = [block.mlp for block in model.blocks if isinstance(block.mlp, MoE)]
    if not layers:
        raise ConfigError("This model has no experts: every token passes the same weights.", field="checkpoint")
    if not 0 < len(tokens) <= model.config.max_position_embeddings:
        limit = model.config.max_position_embeddings
        raise ConfigError(f"The text has {len(tokens)} tokens; the model's context is {limit}.", field="prompt")
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(gate: Any, given: tuple[Tensor], told: tuple[Tensor, Tensor]) -> None:
        weights_TK, chosen_TK = told
        order_TK = weights_TK.argsort(dim=-1, descending=True)
        seen.append((chosen_TK.gather(1, order_TK), weights_TK.gather(1, order_TK), _entropy(gate.scores(given[0]))))

    hooks = [layer.gate.register_forward_hook(look) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        model.hidden(torch.tensor([list(tokens)], device=model.lm_head.weight.device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return Routes(
        [chosen.tolist() for chosen, _, _ in seen],
        [[[round(value, 4) for value in row] for row in weights.tolist()] for _, weights, _ in seen],
        [[round(value, 4) for value in entropy.tolist()] for _, _, entropy in seen],
    )


def loads_of(routes: Sequence[Routes], num_experts: int) -> list[list[float]]:
    """Share of the tokens' choices that each expert got, LE; of several texts together."""
    num_layers = len(routes[0].experts_LTK)
    counts_LE = [[0] * num_experts for _ in range(num_layers)]
    for one in routes:
        for counts_E, chosen_TK in zip(counts_LE, one.experts_LTK, strict=True):
            for chosen_K in chosen_TK:
                for expert in chosen_K:
                    counts_E[expert] += 1
    return [[round(count / max(1, sum(counts_E)), 5) for count in counts_E] for counts_E in counts_LE]


def _entropy(scores_TE: Tensor) -> Tensor:
    """Entropy T of the scores as shares, over its largest."""
    share_TE = scores_TE / scores_TE.sum(dim=-1, keepdim=True)
    entropy_T: Tensor = torch.special.entr(share_TE).sum(dim=-1) / math.log(max(2, scores_TE.shape[1]))
    return entropy_T
