"""Slow twin of a packed batch: one row a sequence, padded on the right, so that causal attention never sees padding.

Letters: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """`tokens_BT` is what the model reads, `targets_BT` what it must say next; only targets under `mask_BT` count.

    `real_BT` is 1 where the next token is not padding either: what a row's last token is routed to decides nothing.
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    mask_BT: Tensor
    real_BT: Tensor


def make_batch(
    sequences: Sequence[tuple[list[int], list[int]]], *, pad: int, device: torch.device | None = None
) -> Batch:
    """One padded batch of (prompt, completion); the mask is 1 where the target is a token of the completion."""
    longest = max(len(prompt) + len(completion) for prompt, completion in sequences)
    tokens_BT = torch.full((len(sequences), longest), pad)
    mask_BT = torch.zeros(len(sequences), longest)
    real_BT = torch.zeros(len(sequences), longest)
    for row, (prompt, completion) in enumerate(sequences):
        end = len(prompt) + len(completion)
        tokens_BT[row, :end] = torch.tensor(prompt + completion)
        mask_BT[row, len(prompt) : end] = 1.0
        real_BT[row, :end] = 1.0
    parts = tokens_BT[:, :-1], tokens_BT[:, 1:], mask_BT[:, 1:], real_BT[:, 1:]
    return Batch(*(part.contiguous().to(device) for part in parts))
