"""Rotary positions in DeepSeek's layout: the rotary dimensions are pairs (0, 1), (2, 3) …, each turned by one angle.

Letters: B batch, T tokens, H heads, P rotary width. Source: DeepSeek-V3 inference code, `apply_rotary_emb`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(num_positions: int, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, in float32. Shapes: (num_positions, width / 2) each."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    turned = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return turned.cos(), turned.sin()


def rotate(x_BTHP: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor) -> Tensor:
    """Turns each pair by its position's angle; the result has all first members before all second ones.

    Scores do not see that order, because queries and keys share it. Q is P / 2.
    """
    even, odd = x_BTHP[..., 0::2], x_BTHP[..., 1::2]
    cos, sin = cos_BTQ[:, :, None, :].to(x_BTHP.dtype), sin_BTQ[:, :, None, :].to(x_BTHP.dtype)
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
