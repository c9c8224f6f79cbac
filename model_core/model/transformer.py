"""The whole model, in the order of the paper: embedding, blocks of latent attention and experts, norm, head.

Parameter names are those of the published checkpoints but for the routed experts, which are stacked here and written
one by one by `model_core.model.exchange`. Letters: B batch, T tokens, D hidden, V vocabulary, C numbers a cached token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model.attention import LatentAttention
from model_core.model.moe import MLP, Experts, Gate, MoE
from model_core.model.rope import angles


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward (dense in the first blocks, experts after)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = LatentAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        dense = index < config.first_k_dense_replace
        self.mlp = MLP(config.hidden_size, config.intermediate_size) if dense else MoE(config)

    def forward(self, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor) -> tuple[Tensor, Tensor]:
        attended, latent_BTC = self.self_attn(self.input_layernorm(x_BTD), cos_BTQ, sin_BTQ)
        x_BTD = x_BTD + attended
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD)), latent_BTC


class Trunk(nn.Module):
    """What the published names call `model`: everything but the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Transformer(nn.Module):
    """A DeepSeek-V3-style language model."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vocab_size > 0, "the vocabulary's size is set from the tokenizer"
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        cos, sin = angles(config.max_position_embeddings, config.qk_rope_head_dim, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialise()

    def forward(self, tokens_BT: Tensor, *, positions_BT: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Logits BTV. Rows are padded on the right: causality alone then keeps padding out of every real token, so
        `attention_mask` changes no logit of a real token and is not looked at here; it says which tokens count as load
        of the experts (`model_core.training.balance`)."""
        hidden_BTD, _latents = self.hidden(tokens_BT, positions_BT)
        logits: Tensor = self.lm_head(hidden_BTD)
        return logits

    def hidden(self, tokens_BT: Tensor, positions_BT: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Last hidden states BTD, normalised, and each layer's latents BTC for a cache."""
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
        cos, sin = self.cos[positions_BT], self.sin[positions_BT]
        x_BTD, latents = self.model.embed_tokens(tokens_BT), []
        for layer in self.model.layers:
            x_BTD, latent_BTC = layer(x_BTD, cos, sin)
            latents.append(latent_BTC)
        return self.model.norm(x_BTD), latents

    @torch.no_grad()
    def initialise(self) -> None:
        """Fresh weights: embedding N(0, 0.5²), gate and head N(0, 0.02²), matrices N(0, 1/fan_in), and those that write
        into the residual stream also divided by √(2 · layers). A head that is the embedding is drawn as a head: at 0.5 the
        first logits would be far apart. Source: measured for small models, docs/experiments.md."""
        residual = 1 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                factor = residual if name.endswith(("o_proj", "down_proj")) else 1.0
                module.weight.normal_(0, factor / math.sqrt(module.in_features))
            elif isinstance(module, Gate):
                module.weight.normal_(0, 0.02)
            elif isinstance(module, Experts):
                module.gate_up_proj.normal_(0, 1 / math.sqrt(module.gate_up_proj.shape[-1]))
                module.down_proj.normal_(0, residual / math.sqrt(module.down_proj.shape[-1]))
        self.lm_head.weight.normal_(0, 0.02)
        if not self.config.tie_word_embeddings:
            self.model.embed_tokens.weight.normal_(0, 0.5)


def count_parameters(config: ModelConfig) -> tuple[int, int]:
    """All parameters, and those that one token is multiplied with: its K experts, and not the embedding, which is a
    look-up. Multi-token prediction is not counted. Source: DeepSeek-V3's 671B and 37B."""
    c = config
    heads, qk = c.num_attention_heads, c.qk_nope_head_dim + c.qk_rope_head_dim
    query = c.hidden_size * heads * qk
    if c.q_lora_rank is not None:
        query = c.q_lora_rank * (c.hidden_size + 1 + heads * qk)
    attention = query + c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank
    attention += c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim) + heads * c.v_head_dim * c.hidden_size
    expert = 3 * c.hidden_size * c.moe_intermediate_size
    num_dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    num_moe = c.num_hidden_layers - num_dense
    common = c.num_hidden_layers * (attention + 2 * c.hidden_size) + num_dense * 3 * c.hidden_size * c.intermediate_size
    common += num_moe * (c.n_routed_experts * c.hidden_size + c.n_shared_experts * expert) + c.hidden_size
    common += c.vocab_size * c.hidden_size * (1 if c.tie_word_embeddings else 2)
    embedding = 0 if c.tie_word_embeddings else c.vocab_size * c.hidden_size
    active = common - embedding + num_moe * c.num_experts_per_tok * expert
    return common + num_moe * c.n_routed_experts * expert, active
