"""Shape of the model, under the names of Hugging Face's DeepSeek-V3 `config.json`, and the presets.

Source: DeepSeek-V3 technical report (arXiv 2412.19437), section 2, and its published config.json.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from model_core.config.base import StrictModel
from model_core.errors import ConfigError


class YarnConfig(StrictModel):
    """YaRN: a context longer than the model was first trained for. Source: arXiv 2309.00071, and DeepSeek-V3, 4.3."""

    factor: float = Field(1.0, ge=1)
    """How many times longer the context is than the original one; 1: not scaled."""
    original_max_position_embeddings: int = Field(4096, ge=8)
    """Context in tokens before scaling."""
    beta_fast: float = Field(32.0, gt=0)
    """Rotary pairs that turn at least so often over the original context keep their frequency."""
    beta_slow: float = Field(1.0, gt=0)
    """Rotary pairs that turn at most so often over the original context are slowed by the whole factor."""
    mscale: float = Field(1.0, ge=0)
    """Strength of the factor on the rotary part, 0.1 · mscale · ln(factor) + 1."""
    mscale_all_dim: float = Field(1.0, ge=0)
    """Strength of the factor on all scores, which the rotary part is divided by; 0: none."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.beta_slow >= self.beta_fast:
            raise ValueError(f"beta_slow {self.beta_slow} must be less than beta_fast {self.beta_fast}")
        return self


class ModelConfig(StrictModel):
    """A DeepSeek-style mixture-of-experts transformer. `vocab_size` 0 means: as many as the tokenizer has.

    Sigmoid scores with `noaux_tc` are DeepSeek-V3's gate, softmax scores with the other two DeepSeek-V2's.
    """

    vocab_size: int = Field(0, ge=0)
    """Number of token ids; 0 takes the tokenizer's size."""
    hidden_size: int = Field(128, ge=8, multiple_of=8)
    """Width of the residual stream; grouped matrix products want a multiple of 8."""
    num_hidden_layers: int = Field(3, ge=1)
    """Number of transformer blocks."""
    first_k_dense_replace: int = Field(1, ge=0)
    """How many of the first blocks have a dense MLP instead of experts."""
    intermediate_size: int = Field(256, ge=1)
    """Inner width of the dense MLP."""
    moe_intermediate_size: int = Field(64, ge=8, multiple_of=8)
    """Inner width of one expert; a multiple of 8 likewise."""
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
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    """How the gate turns logits into scores."""
    topk_method: Literal["noaux_tc", "greedy", "group_limited_greedy"] = "noaux_tc"
    """How experts are chosen. "noaux_tc": by score plus balancing bias, within the groups whose two best sum highest.
    "greedy": by score. "group_limited_greedy": by score, within the groups with the highest score."""
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
    rope_scaling: YarnConfig = YarnConfig()
    """Scaling of the rotary positions for long contexts."""
    max_position_embeddings: int = Field(256, ge=8)
    """Longest sequence, in tokens."""
    num_nextn_predict_layers: int = Field(0, ge=0, le=1)
    """Blocks of multi-token prediction after the last one: 1 also predicts the token after the next."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.scoring_func == "sigmoid") != (self.topk_method == "noaux_tc"):
            raise ValueError(
                f"scoring_func is {self.scoring_func} but topk_method is {self.topk_method}: sigmoid goes with noaux_tc, softmax "
                "with greedy or group_limited_greedy"
            )
        if self.scoring_func == "softmax" and self.norm_topk_prob:
            raise ValueError("norm_topk_prob must be false with softmax scores, whose weights are not normalised again")
        if self.topk_method == "greedy" and self.n_group > 1:
            raise ValueError(f"n_group is {self.n_group} but topk_method greedy knows no groups; choose group_limited_greedy")
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


    @property
    def model_type(self) -> str:
        """The architecture's name in config.json."""
        return "deepseek_v3" if self.scoring_func == "sigmoid" else "deepseek_v2"


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {
        "hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "moe_intermediate_size": 176,
        "num_attention_heads": 8, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
        "n_routed_experts": 16, "num_experts_per_tok": 2, "max_position_embeddings": 1024,
    },
    "medium": {
        "hidden_size": 1536, "num_hidden_layers": 20, "intermediate_size": 4096, "moe_intermediate_size": 512,
        "num_attention_heads": 16, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 32, "num_experts_per_tok": 4, "n_shared_experts": 1, "max_position_embeddings": 4096,
    },
    "v2_lite": {
        "vocab_size": 102400, "hidden_size": 2048, "num_hidden_layers": 27, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "num_attention_heads": 16, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
        "scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False, "max_position_embeddings": 163840,
        "rope_scaling": {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "v3_671b": {
        "vocab_size": 129280, "hidden_size": 7168, "num_hidden_layers": 61, "first_k_dense_replace": 3,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_attention_heads": 128, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
        "max_position_embeddings": 163840, "rope_scaling": {"factor": 40.0}, "num_nextn_predict_layers": 1,
    },
}
"""Deviations from the defaults. "tiny" learns on a laptop's CPU; "small" is for real text on a CPU or one consumer GPU of
12 GB; "medium" (1.8B parameters) for one GPU of 80 GB or more; "v2_lite" is DeepSeek-V2-Lite (16B), "v3_671b" DeepSeek-V3,
to be planned with and not to be trained on one machine.
Source of the last two: the published config.json of each."""


def preset(name: str) -> ModelConfig:
    """The preset called `name`. Raises ConfigError with the names that exist."""
    if name not in PRESETS:
        raise ConfigError(f"There is no model preset “{name}”. There are: {', '.join(PRESETS)}.", field="model")
    return ModelConfig.model_validate(PRESETS[name])
