"""Latent cache: for each layer one preallocated block of (rows, tokens, C) numbers, and how far each row is filled.

A row is one completion in the making. The rows in use are always the first ones, so that no step has to gather them:
whoever ends a row moves another into its place. A token's numbers are those of `Transformer.hidden`.
Letters: B rows, T tokens, L layers, C = R + P = kv_lora_rank + qk_rope_head_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_core.model import Transformer


class LatentCache:
    """Memory for `num_rows` completions of at most `num_tokens` tokens each, prompt included.

    `has_draft` adds a last layer for the block of multi-token prediction.
    """

    def __init__(self, model: Transformer, num_rows: int, num_tokens: int, *, has_draft: bool = False) -> None:
        rank, width = model.config.kv_lora_rank, model.config.qk_rope_head_dim
        weight = model.lm_head.weight
        self.layers = [
            torch.zeros(num_rows, num_tokens, rank + width, dtype=weight.dtype, device=weight.device)
            for _ in range(len(model.blocks) + has_draft)
        ]
        self.filled_B = torch.zeros(num_rows, dtype=torch.long, device=weight.device)
        self.longest = 0
        """No row in use holds more tokens; known without asking the device."""
        self.numbers_S = torch.arange(num_tokens, device=weight.device)
        self.starts_B1 = torch.arange(num_rows, device=weight.device)[:, None] * num_tokens
        """Where each row begins when the rows stand one behind the other."""
        self.open, self.closed = (torch.full((), value, dtype=weight.dtype, device=weight.device) for value in (0.0, -math.inf))
        """What is added to the score of a token that may be seen, and of one that may not."""

    @property
    def num_rows(self) -> int:
        return len(self.filled_B)

    def fill(self, latents: list[Tensor], lengths_B: Tensor) -> None:
        """Stores latents as `Transformer.hidden` gives them (one BTC a layer, padded on the right) in the first rows."""
        for layer, latent_BTC in enumerate(latents):
            self.fill_layer(layer, latent_BTC)
        self.begin(lengths_B, latents[0].shape[1])

    def fill_layer(self, layer: int, latent_BTC: Tensor) -> None:
        """Stores the latents of one layer."""
        self.layers[layer][: len(latent_BTC), : latent_BTC.shape[1]] = latent_BTC

    def begin(self, lengths_B: Tensor, longest: int) -> None:
        """Says how many tokens the first rows hold."""
        self.filled_B[: len(lengths_B)] = lengths_B
        self.longest = longest

    def take(self, rows_B: Tensor, source: LatentCache, which_B: Tensor) -> None:
        """Copies rows of another cache, or of this one, to `rows_B`."""
        longest = source.longest
        for block, other in zip(self.layers, source.layers, strict=True):
            block[rows_B, :longest] = other[which_B, :longest]
        self.filled_B[rows_B] = source.filled_B[which_B]
        self.longest = max(self.longest, longest)

    def measure(self, num_rows: int) -> None:
        """Finds `longest` among the first `num_rows` anew."""
        self.longest = int(self.filled_B[:num_rows].max()) if num_rows else 0
