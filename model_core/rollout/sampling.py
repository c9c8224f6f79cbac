"""Draws the next token of each row from its logits. Letters: B rows, V vocabulary.

A token is the place where a uniform number falls in the cumulated probabilities: one number a row, where noise for
every token of the vocabulary costs a CPU twenty times as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.errors import TrainingError

GREEDY_BELOW = 1e-5
"""A temperature below this takes the most likely token: dividing by it would overflow."""


class NonFiniteLogits(TrainingError):
    """A row's logits hold a NaN or an infinity, so that no token can be drawn; `row` says which."""

    def __init__(self, row: int, *, num_made: int | None = None) -> None:
        place = "" if num_made is None else f", after {num_made} tokens of its completion,"
        super().__init__(
            f"The model's logits of row {row}{place} are not finite numbers: its weights, or what they compute in this "
            "dtype, are broken. Go back to an earlier checkpoint, or use float32."
        )
        self.row = row


@dataclass(frozen=True, slots=True)
class Cut:
    """What may be drawn: tokens that all three leave over. Each is one number, or one a row (B1)."""

    top_p: float | Tensor = 1.0
    """The smallest set of likeliest tokens whose probabilities reach this."""
    top_k: int | Tensor = 0
    """So many likeliest tokens; 0 or less: all."""
    min_p: float | Tensor = 0.0
    """Tokens at least so likely as this times the likeliest."""


def draw(
    logits_BV: Tensor, uniform_B: Tensor, *, temperature: float | Tensor = 1.0, cut: Cut | None = None
) -> tuple[Tensor, Tensor]:
    """Next tokens B and their log-probabilities B under softmax(logits / temperature), before any cut.

    `uniform_B` is float64 in [0, 1); `temperature` is one number or one a row (B1), at least GREEDY_BELOW.
    Raises NonFiniteLogits.
    """
    scaled_BV = logits_BV.float() if isinstance(temperature, float) and temperature == 1.0 else logits_BV.float() / temperature
    weights_BV = scaled_BV.softmax(dim=-1)
    allowed_BV = weights_BV if cut is None else _allowed(weights_BV, cut)
    reached_BV = allowed_BV.cumsum(dim=-1, dtype=torch.float64)
    _refuse_non_finite(reached_BV[:, -1])
    aim_B1 = uniform_B[:, None] * reached_BV[:, -1:]
    tokens_B1 = torch.searchsorted(reached_BV, aim_B1, right=True)
    return tokens_B1[:, 0], weights_BV.gather(1, tokens_B1)[:, 0].log_()


def most_likely(logits_BV: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest tokens B and their log-probabilities B at temperature 1. Raises NonFiniteLogits."""
    best_B, tokens_B = logits_BV.max(dim=-1)
    _refuse_non_finite(best_B)
    return tokens_B, best_B.float() - logits_BV.float().logsumexp(dim=-1)


def _refuse_non_finite(values_B: Tensor) -> None:
    """One number a row tells: a NaN or an infinity among the logits reaches the sum and the maximum."""
    if not math.isfinite(float(values_B.sum())):
        raise NonFiniteLogits(int((~values_B.isfinite()).nonzero()[0]))


def _allowed(weights_BV: Tensor, cut: Cut) -> Tensor:
    """The weights with zero for what is cut."""
    ordered_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(weights_BV.shape[-1], device=weights_BV.device)
    top_k = torch.as_tensor(cut.top_k, device=weights_BV.device)
    gone_BV = ordered_BV.cumsum(dim=-1) - ordered_BV >= cut.top_p
    gone_BV |= (rank_V >= top_k) & (top_k > 0)
    gone_BV |= ordered_BV < ordered_BV[:, :1] * cut.min_p
    return torch.zeros_like(weights_BV).scatter_(1, order_BV, ordered_BV.masked_fill_(gone_BV, 0.0))
