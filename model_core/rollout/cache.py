"""Latent cache: for each layer one preallocated block of (rows, tokens, R + P) numbers, and how far each row is filled.

A row is one completion in the making. Rows are claimed, filled by a prefill, extended one token a step, and given back.
Letters: B rows, S tokens, C = kv_lora_rank + qk_rope_head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model_core.model import Transformer


class LatentCache:
    """Memory for `num_rows` completions of at most `num_tokens` tokens each, prompt included."""

    def __init__(self, model: Transformer, num_rows: int, num_tokens: int) -> None:
        width = model.config.kv_lora_rank + model.config.qk_rope_head_dim
        weight = model.lm_head.weight
        self.layers = [
            torch.zeros(num_rows, num_tokens, width, dtype=weight.dtype, device=weight.device) for _ in model.model.layers
        ]
        self.filled_B = torch.zeros(num_rows, dtype=torch.long, device=weight.device)

    @property
    def num_rows(self) -> int:
        return len(self.filled_B)

    def fill(self, rows: Tensor, latents: list[Tensor], lengths: Tensor) -> None:
        """Stores prefilled latents (one BTC a layer, padded on the right) in `rows`."""
        for block, latent_BTC in zip(self.layers, latents, strict=True):
            block[rows, : latent_BTC.shape[1]] = latent_BTC
        self.filled_B[rows] = lengths


def decode_step(model: Transformer, cache: LatentCache, rows_B: Tensor, tokens_B: Tensor) -> Tensor:
    """Feeds one token to each of `rows_B` and returns the logits BV of what follows; the rows grow by one."""
    positions_B = cache.filled_B[rows_B]
    longest = int(positions_B.max()) + 1
    steps_S = torch.arange(longest, device=positions_B.device)
    bias_BS = torch.zeros(len(rows_B), longest, dtype=cache.layers[0].dtype, device=positions_B.device)
    bias_BS.masked_fill_(steps_S > positions_B[:, None], float("-inf"))
    cos, sin = model.cos[positions_B][:, None], model.sin[positions_B][:, None]
    x = model.model.embed_tokens(tokens_B)[:, None]
    layers: Any = model.model.layers
    for layer, block in zip(layers, cache.layers, strict=True):
        attended = layer.self_attn.decode(layer.input_layernorm(x), cos, sin, block, rows_B, bias_BS, positions_B)
        x = x + attended
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    cache.filled_B[rows_B] += 1
    logits: Tensor = model.lm_head(model.model.norm(x))[:, 0]
    return logits
