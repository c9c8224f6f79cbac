"""Multi-head latent attention (MLA): keys and values are made from one small latent a token, which is all the cache keeps.

Two paths give the same numbers: `forward` here expands keys and values (training, long prompts); `rollout.decoder` stays in
the latent space with the up-projections absorbed into query and output. Letters: B batch, T tokens, H heads, D hidden,
N width without position, P rotary width, V value width, R latent rank.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.1, equations 1 to 11.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model.norm import RMSNorm
from model_core.model.packing import Packing
from model_core.model.rope import rotate, score_scale

LATENT_NORM_EPS = 1e-6
"""Fixed in the published code and in transformers, whatever rms_norm_eps says."""


class LatentAttention(nn.Module):
    """MLA under the published parameter names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads, nope, rope = config.num_attention_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(config.hidden_size, heads * (nope + rope), bias=False)
        else:
            self.q_a_proj = nn.Linear(config.hidden_size, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=LATENT_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * (nope + rope), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, config.kv_lora_rank + rope, bias=False)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, eps=LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(config.kv_lora_rank, heads * (nope + config.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, config.hidden_size, bias=False)
        self.scale = score_scale(config)

    def forward(
        self, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor, packing: Packing | None = None
    ) -> tuple[Tensor, Tensor]:
        """Causal attention over the T tokens of each row, or with `packing` over those of each document in the one row.

        Returns output BTD and what a cache stores, B T (R + P).
        """
        c = self.config
        q_nope_BTHN, q_rope_BTHP = self._queries(x_BTD, cos_BTQ, sin_BTQ)
        latent_BTR, k_rope_BTP = self._latent(x_BTD, cos_BTQ, sin_BTQ)
        k_nope, v_BTHV = (
            self.kv_b_proj(latent_BTR)
            .unflatten(-1, (c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim))
            .split([c.qk_nope_head_dim, c.v_head_dim], dim=-1)
        )
        k_rope = k_rope_BTP[:, :, None].expand(-1, -1, c.num_attention_heads, -1)
        q, k = torch.cat([q_nope_BTHN, q_rope_BTHP], dim=-1), torch.cat([k_nope, k_rope], dim=-1)
        if packing is None:
            out_BTHV = _causal(q, k, v_BTHV, self.scale)
        else:
            out_BTHV = packing.together(_causal(packing.spread(q), packing.spread(k), packing.spread(v_BTHV), self.scale))
        return self.o_proj(out_BTHV.flatten(2)), torch.cat([latent_BTR, k_rope_BTP], dim=-1)

    def _queries(self, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        q = self.q_proj(x_BTD) if c.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        q_nope, q_rope = q.unflatten(-1, (c.num_attention_heads, -1)).split([c.qk_nope_head_dim, c.qk_rope_head_dim], dim=-1)
        return q_nope, rotate(q_rope, cos_BTQ, sin_BTQ)

    def _latent(self, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        latent, k_rope = self.kv_a_proj_with_mqa(x_BTD).split([c.kv_lora_rank, c.qk_rope_head_dim], dim=-1)
        return self.kv_a_layernorm(latent), rotate(k_rope[:, :, None], cos_BTQ, sin_BTQ)[:, :, 0]


def _causal(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, scale: float) -> Tensor:
    """Causal attention, BTHV. Flash kernels want values as wide as keys, so narrower ones are padded with zeros: twice as
    fast as the other kernel at a thousand tokens on a CPU, never slower."""
    width, missing = v_BTHV.shape[-1], q_BTHK.shape[-1] - v_BTHV.shape[-1]
    v_BTHV = F.pad(v_BTHV, (0, missing)) if missing > 0 else v_BTHV
    out_BHTV = F.scaled_dot_product_attention(
        q_BTHK.transpose(1, 2), k_BTHK.transpose(1, 2), v_BTHV.transpose(1, 2), is_causal=True, scale=scale
    )
    return out_BHTV.transpose(1, 2)[..., :width]
