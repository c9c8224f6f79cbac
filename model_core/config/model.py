"""Shape of the model, under the names of Hugging Face's DeepSeek-V3 `config.json`, and the presets.

Source: DeepSeek-V3 technical report (arXiv 2412.19437), section 2, and its published config.json.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.errors import ConfigError


class ModelConfig(StrictModel):
    """A DeepSeek-V3-style mixture-of-experts transformer. `vocab_size` 0 means: as many as the tokenizer has."""

    vocab_size: int = Field(0, ge=0)
    """Number of token ids; 0 takes the tokenizer's size."""
    hidden_size: int = Field(128, ge=8)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(3, ge=1)
    """Number of transformer blocks."""
    first_k_dense_replace: int = Field(1, ge=0)
    """How many of the first blocks have a dense MLP instead of experts."""
    intermediate_size: int = Field(256, ge=1)
    """Inner width of the dense MLP."""
    moe_intermediate_size: int = Field(64, ge=1)
    """Inner width of one expert."""
    num_attention_heads: int = Field(4, ge=1)
    """Attention heads."""
    q_lora_rank: int | None = Field(None, ge=1)
    """Rank of the query compression; empty: queries are projected directly."""
    kv_lora_rank: int = Field(32, ge=1)
    """Rank of the latent that the cache stores, per token and layer."""
    qk_nope_head_dim: int = Field(16, ge=1)
    """Head width without position."""
    qk_rope_head_dim: int = Field(16, ge=2, multiple_of=2)
    """Head width that carries the rotary position; shared by all heads on the key side."""
    v_head_dim: int = Field(32, ge=1)
    """Head width of the values."""
    n_routed_experts: int = Field(8, ge=1)
    """Routed experts of a block."""
    n_shared_experts: int = Field(1, ge=0)
    """Experts that every token passes."""
    num_experts_per_tok: int = Field(2, ge=1)
    """Routed experts chosen for a token (top-k)."""
    n_group: int = Field(1, ge=1)
    """Groups of experts for group-limited routing."""
    topk_group: int = Field(1, ge=1)
    """Groups that may be chosen from."""
    norm_topk_prob: bool = True
    """Whether the chosen weights are made to sum to 1."""
    routed_scaling_factor: float = Field(1.0, gt=0)
    """Factor on the routed experts' output."""
    rms_norm_eps: float = Field(1e-6, gt=0)
    """Epsilon of the RMS norms."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary frequencies."""
    max_position_embeddings: int = Field(256, ge=8)
    """Longest sequence, in tokens."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok} but n_routed_experts is {self.n_routed_experts}: "
                "a token cannot pass more experts than there are; lower the first or raise the second"
            )
        if self.n_routed_experts % self.n_group:
            raise ValueError(f"n_routed_experts {self.n_routed_experts} must divide by n_group {self.n_group}")
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group {self.topk_group} must not exceed n_group {self.n_group}")
        reachable = self.topk_group * self.n_routed_experts // self.n_group
        if self.num_experts_per_tok > reachable:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok}, but {self.topk_group} of {self.n_group} groups hold only "
                f"{reachable} experts; lower it or raise topk_group"
            )
        return self


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "moe_intermediate_size": 176,
        "num_attention_heads": 8, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
        "n_routed_experts": 16, "num_experts_per_tok": 2, "max_position_embeddings": 1024,
    },
}
"""Deviations from the defaults; "tiny" learns on a laptop's CPU, "small" is for real text on one small GPU or CPU."""


def preset(name: str) -> ModelConfig:
    """The preset called `name`. Raises ConfigError with the names that exist."""
    if name not in PRESETS:
        raise ConfigError(f"There is no model preset “{name}”. There are: {', '.join(PRESETS)}.", field="model")
    return ModelConfig(**PRESETS[name])
