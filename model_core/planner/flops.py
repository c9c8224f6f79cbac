"""Floating-point operations of one token: two for each active parameter, and those of attention, which grow with length.

Units: FLOPs a token; a multiplication and an addition are two.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config import ModelConfig
from model_core.planner.dense import DenseModel
from model_core.planner.parameters import Shape, block_norms, count_parameters, expert, next_token

BACKWARD = 2
"""The backward pass multiplies twice where the forward pass does once: for the input's gradient and for the weight's."""


@dataclass(frozen=True)
class Flops:
    """FLOPs a token. `attention` is the part of `forward` that grows with the length; `training` is what a share of the peak
    (MFU) is reckoned with, `recomputed` what checkpointing adds to it."""

    forward: int
    attention: int
    training: int
    recomputed: int


def flops(config: Shape, sequence_tokens: int, *, checkpointing: bool = False) -> Flops:
    """Of a token in sequences of `sequence_tokens`; a causal token attends to half of its sequence on average.

    Training adds multi-token prediction and the backward pass; checkpointing a second forward pass of the blocks.
    """
    c = config
    if isinstance(c, DenseModel):
        norms, width = c.norms(), 2 * c.head_dim
    else:
        norms, width = block_norms(c), c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim
    per_block = sequence_tokens * c.num_attention_heads * width
    attention = c.num_hidden_layers * per_block
    forward = 2 * (count_parameters(c)[1] - c.num_hidden_layers * norms - c.hidden_size) + attention
    trained = forward + (0 if isinstance(c, DenseModel) else _next_token(c, per_block))
    head = 2 * c.vocab_size * c.hidden_size
    again = trained - head * (1 + c.num_nextn_predict_layers) if checkpointing else 0
    return Flops(forward, attention, training=trained * (1 + BACKWARD), recomputed=again)


def _next_token(config: ModelConfig, attention: int) -> int:
    """Forward FLOPs of multi-token prediction: its active parameters, attention, and the head once more."""
    if not config.num_nextn_predict_layers:
        return 0
    resting = config.n_routed_experts - config.num_experts_per_tok
    active = next_token(config) - resting * expert(config) - block_norms(config) - 3 * config.hidden_size
    return 2 * (active + config.vocab_size * config.hidden_size) + attention
