"""Draws the next token of each row from its logits. Letters: B rows, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""A temperature below this takes the most likely token: dividing by it would overflow."""


def draw(
    logits_BV: Tensor, *, temperature: float, top_p: float, generator: torch.Generator, top_k: int = 0, min_p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Next tokens B and their log-probabilities B under softmax(logits / temperature), before any cut.

    A temperature below GREEDY_BELOW takes the most likely token and gives its log-probability at temperature 1.
    `top_k` of 0 or less and `min_p` of 0 cut nothing.
    """
    if temperature < GREEDY_BELOW:
        logprobs_BV = logits_BV.float().log_softmax(dim=-1)
        tokens_B = logits_BV.argmax(dim=-1)
    else:
        logprobs_BV = (logits_BV.float() / temperature).log_softmax(dim=-1)
        weights_BV = logprobs_BV.exp()
        if top_p < 1:
            weights_BV = _nucleus(weights_BV, top_p)
        if 0 < top_k < weights_BV.shape[-1]:
            weights_BV = _likeliest(weights_BV, top_k)
        if min_p > 0:
            weights_BV = weights_BV.masked_fill(weights_BV < min_p * weights_BV.amax(dim=-1, keepdim=True), 0.0)
        noise_BV = torch.empty_like(weights_BV).exponential_(generator=generator)
        tokens_B = (weights_BV / noise_BV).argmax(dim=-1)
    return tokens_B, logprobs_BV.gather(1, tokens_B[:, None])[:, 0]


def _nucleus(weights_BV: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the smallest set of likeliest tokens whose probabilities reach top_p."""
    ordered_BV, order_BV = weights_BV.sort(dim=-1, descending=True)
    before_BV = ordered_BV.cumsum(dim=-1) - ordered_BV
    return torch.zeros_like(weights_BV).scatter_(1, order_BV, ordered_BV.masked_fill(before_BV >= top_p, 0.0))


def _likeliest(weights_BV: Tensor, top_k: int) -> Tensor:
    """Zeroes all but the `top_k` likeliest tokens."""
    kept_BK, order_BK = weights_BV.topk(top_k, dim=-1)
    return torch.zeros_like(weights_BV).scatter_(1, order_BK, kept_BK)
