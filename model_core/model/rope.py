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
    """Turns each pair by its position's angle, a complex number by another; a pair's members stay side by side. Q is P / 2."""
    # A copy of its own: a view may begin at an odd place, where no complex number can.
    x_BTHQ2 = x_BTHP.float().reshape(*x_BTHP.shape[:-1], -1, 2).clone(memory_format=torch.contiguous_format)
    turned_BTHQ = torch.view_as_complex(x_BTHQ2) * torch.complex(cos_BTQ.float(), sin_BTQ.float())[:, :, None]
    return torch.view_as_real(turned_BTHQ).flatten(-2).to(x_BTHP.dtype)


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
