"""Slow twins of the sampler: one token a step by `LatentAttention.decode`, or the whole sequence for every token."""

from __future__ import annotations

import torch
from torch import Tensor

from model_core.model import Transformer


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
            x_B1D = x_B1D + layer.self_attn.decode(layer.input_layernorm(x_B1D), cos, sin, block, rows_B, bias_BS, positions_B)
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
