"""Slow twins of the sampler: one token a step with absorbed projections, or the whole sequence for every token."""

from __future__ import annotations

import torch
from torch import Tensor

from model_core.model import Transformer
from model_core.model.attention import LatentAttention


class PlainDecoder:
    """Feeds one token to each of its rows a step, block by block; all rows begin with prompts of `lengths` tokens."""

    def __init__(self, model: Transformer, prompts: list[list[int]], num_tokens: int) -> None:
        self.model, width = model, model.config.kv_lora_rank + model.config.qk_rope_head_dim
        self.filled_B = torch.tensor([len(prompt) for prompt in prompts])
        self.layers = [torch.zeros(len(prompts), num_tokens, width, dtype=model.lm_head.weight.dtype) for _ in model.blocks]
        for row, prompt in enumerate(prompts):
            for block, latent_1TC in zip(self.layers, model.hidden(torch.tensor([prompt]))[1], strict=True):
                block[row, : len(prompt)] = latent_1TC[0]

    def step(self, tokens_B: Tensor) -> Tensor:
        """Logits BV of what follows."""
        model, positions_B = self.model, self.filled_B
        longest = int(positions_B.max()) + 1
        bias_BS = torch.zeros(len(tokens_B), longest, dtype=self.layers[0].dtype)
        bias_BS.masked_fill_(torch.arange(longest) > positions_B[:, None], float("-inf"))
        cos, sin = model.cos[positions_B][:, None], model.sin[positions_B][:, None]
        x_B1D, rows_B = model.model.embed_tokens(tokens_B)[:, None], torch.arange(len(tokens_B))
        for layer, block in zip(model.blocks, self.layers, strict=True):
            x_B1D = x_B1D + decode(layer.self_attn, layer.input_layernorm(x_B1D), cos, sin, block, rows_B, bias_BS, positions_B)
            x_B1D = x_B1D + layer.mlp(layer.post_attention_layernorm(x_B1D))
        self.filled_B = positions_B + 1
        logits: Tensor = model.lm_head(model.model.norm(x_B1D))[:, 0]
        return logits


@torch.no_grad()
def greedy(model: Transformer, prompt: list[int], max_new_tokens: int, *, eos: int) -> list[int]:
    """The likeliest token again and again, until the end token or so many."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_new_tokens:
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        if tokens[-1] == eos:
            break
    return tokens[len(prompt) :]


@torch.no_grad()
def logprobs(model: Transformer, prompt: list[int], completion: list[int], temperature: float = 1.0) -> Tensor:
    """Log-probability of each token of the completion, by one forward pass over all of it."""
    whole = torch.tensor([prompt + completion])
    full = (model(whole)[0] / temperature).log_softmax(-1)[len(prompt) - 1 : -1]
    return full.gather(1, whole[0, len(prompt) :, None])[:, 0]


def decode(
    attention: LatentAttention, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor, cache_BSC: Tensor, rows_B: Tensor, bias_BS: Tensor,
    positions_B: Tensor,
) -> Tensor:  # fmt: skip
    """One new token a row (T is 1): writes its latent at `positions_B` and attends to what `bias_BS` leaves open.

    `cache_BSC` holds R + P numbers a token and may have more rows than there are: `rows_B` says which are meant,
    in ascending order, so that all rows together need no copy.
    """
    c = attention.config
    q_nope_BTHN, q_rope_BTHP = attention._queries(x_BTD, cos_BTQ, sin_BTQ)
    latent_BTR, k_rope_BTP = attention._latent(x_BTD, cos_BTQ, sin_BTQ)
    cache_BSC[rows_B, positions_B] = torch.cat([latent_BTR, k_rope_BTP], dim=-1)[:, 0]
    length = bias_BS.shape[1]
    seen_BSC = cache_BSC[:, :length] if len(rows_B) == len(cache_BSC) else cache_BSC[rows_B, :length]
    up_HKR = attention.kv_b_proj.weight.view(c.num_attention_heads, -1, c.kv_lora_rank)
    up_key_HNR, up_value_HVR = up_HKR.split([c.qk_nope_head_dim, c.v_head_dim], dim=1)  # type: ignore[no-untyped-call]
    q_latent_BHR = torch.matmul(q_nope_BTHN[:, 0].transpose(0, 1), up_key_HNR).transpose(0, 1)
    q_BHC = torch.cat([q_latent_BHR, q_rope_BTHP[:, 0]], dim=-1) * attention.scale
    scores_BHS = torch.baddbmm(bias_BS[:, None], q_BHC, seen_BSC.transpose(1, 2))
    mixed_BHR = torch.bmm(scores_BHS.softmax(dim=-1), seen_BSC[..., : c.kv_lora_rank])
    out_BHV = torch.matmul(mixed_BHR.transpose(0, 1), up_value_HVR.transpose(1, 2)).transpose(0, 1)
    out: Tensor = attention.o_proj(out_BHV.flatten(1)[:, None])
    return out
