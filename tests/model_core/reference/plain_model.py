"""Slow twins of the model's fast paths: the same mathematics in the most direct form."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.model import Transformer
from model_core.model.attention import LatentAttention


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def experts(x_TD: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    rows = []
    for x_D, chosen, weights in zip(x_TD, chosen_TK.tolist(), weights_TK, strict=True):
        outs = []
        for expert, weight in zip(chosen, weights, strict=True):
            gate, up = (gate_up_EGD[expert] @ x_D).chunk(2)
            outs.append(weight * (down_EDF[expert] @ (F.silu(gate) * up)))
        rows.append(torch.stack(outs).sum(dim=0))
    return torch.stack(rows)


def masked_attention(attention: LatentAttention, x_1ND: Tensor, cos: Tensor, sin: Tensor, document_N: Tensor) -> Tensor:
    """Attention of one packed row by a full mask: to earlier tokens of the same document."""
    c = attention.config
    q_nope, q_rope = attention._queries(x_1ND, cos, sin)
    latent, k_rope = attention._latent(x_1ND, cos, sin)
    k_nope, value = attention.kv_b_proj(latent).unflatten(-1, (c.num_attention_heads, -1)).split(
        [c.qk_nope_head_dim, c.v_head_dim], dim=-1)
    q_NHK = torch.cat([q_nope, q_rope], dim=-1)[0]
    k_NHK = torch.cat([k_nope, k_rope[:, :, None].expand(-1, -1, c.num_attention_heads, -1)], dim=-1)[0]
    scores_HNM = torch.einsum("nhk,mhk->hnm", q_NHK, k_NHK) * attention.scale
    place_N = torch.arange(len(document_N))
    is_open = (document_N[:, None] == document_N) & (place_N[:, None] >= place_N)
    probs_HNM = scores_HNM.masked_fill(~is_open, -math.inf).softmax(dim=-1)
    out: Tensor = attention.o_proj(torch.einsum("hnm,mhv->nhv", probs_HNM, value[0]).flatten(1))
    return out[None]


def next_hidden(model: Transformer, tokens: list[int]) -> Tensor:
    """Multi-token prediction of one document, place by place from its own prefix. Shape (len(tokens) - 1, D)."""
    block = model.next_token_block
    assert block is not None
    hidden_TD = model.hidden(torch.tensor([tokens]))[0][0]
    embedded_TD = model.model.embed_tokens(torch.tensor(tokens))
    rows = []
    for end in range(1, len(tokens)):
        joined = torch.cat([
            rms_norm(embedded_TD[1 : end + 1], block.enorm.weight, block.enorm.eps),
            rms_norm(hidden_TD[:end], block.hnorm.weight, block.hnorm.eps),
        ], dim=-1) @ block.eh_proj.weight.t()
        out_1TD, _latent = block(joined[None], model.cos[None, :end], model.sin[None, :end])
        rows.append(rms_norm(out_1TD[0, -1], block.shared_head.norm.weight, block.shared_head.norm.eps))
    return torch.stack(rows)


def rotated(x_BTHP: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotation of each pair (0, 1), (2, 3) … by sine and cosine."""
    first, second = x_BTHP[..., 0::2], x_BTHP[..., 1::2]
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
