"""Rotary positions in DeepSeek's layout: the rotary dimensions are pairs (0, 1), (2, 3) …, each turned by one angle.

YaRN slows the pairs that turn seldom, so that a longer context looks like the one the model knows, and sharpens the
scores a little. Letters: B batch, T tokens, H heads, P rotary width, Q pairs.
Source: DeepSeek-V3 inference code, `apply_rotary_emb`; YaRN, arXiv 2309.00071, sections 3.2 to 3.4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_core.config import ModelConfig, YarnConfig


def angles(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, in float32. Shapes: (max_position_embeddings, Q) each."""
    width, yarn = config.qk_rope_head_dim, config.rope_scaling
    frequencies_Q = 1.0 / config.rope_theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    if yarn.factor > 1:
        kept_Q = _kept(yarn, width, config.rope_theta)
        frequencies_Q = frequencies_Q / yarn.factor * (1 - kept_Q) + frequencies_Q * kept_Q
    turned = torch.arange(config.max_position_embeddings, dtype=torch.float32)[:, None] * frequencies_Q
    strength = _strength(yarn.factor, yarn.mscale)
    if yarn.mscale_all_dim:
        strength /= _strength(yarn.factor, yarn.mscale_all_dim)
    return turned.cos() * strength, turned.sin() * strength


def score_scale(config: ModelConfig) -> float:
    """Factor on the scores of attention: 1/√width, and YaRN's strength on all dimensions squared."""
    width, yarn = config.qk_nope_head_dim + config.qk_rope_head_dim, config.rope_scaling
    return math.pow(width, -0.5) * _strength(yarn.factor, yarn.mscale_all_dim) ** 2


def rotate(x_BTHP: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor) -> Tensor:
    """Turns each pair by its position's angle; the result has all first members before all second ones.

    Scores do not see that order, because queries and keys share it. Q is P / 2.
    """
    even, odd = x_BTHP[..., 0::2], x_BTHP[..., 1::2]
    cos, sin = cos_BTQ[:, :, None, :].to(x_BTHP.dtype), sin_BTQ[:, :, None, :].to(x_BTHP.dtype)
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


def _strength(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0


def _kept(yarn: YarnConfig, width: int, theta: float) -> Tensor:
    """How much of its frequency each pair keeps: 1 for the fast ones, 0 for the slow ones, a ramp between. Shape Q."""
    first = max(math.floor(_pair_that_turns(yarn.beta_fast, yarn, width, theta)), 0)
    last = min(math.ceil(_pair_that_turns(yarn.beta_slow, yarn, width, theta)), width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float32) - first) / ((last - first) or 0.001)
    return 1 - ramp.clamp(0, 1)


def _pair_that_turns(times: float, yarn: YarnConfig, width: int, theta: float) -> float:
    """The number of the pair that turns `times` over the original context, between the whole ones."""
    return width * math.log(yarn.original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(theta))
