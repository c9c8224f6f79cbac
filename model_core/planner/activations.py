"""Bytes that a forward pass leaves for the backward pass, and those that the backward pass needs besides, for each token.

Read from what each module of `model_core.model` saves for autograd; where two save the same tensor it is counted at the
first. Attention saves no matrix of tokens by tokens: its kernel recomputes the scores. Letters: D hidden, H heads, R
latent rank, P rotary width, N width without position, V value width, E experts, K chosen, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config import ModelConfig
from model_core.planner.parameters import expert

FLOAT, INTEGER = 4, 8
"""Bytes of what stays float32 in every precision (statistics, router, loss), and of token ids and indices."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one pass over `tokens`. The methods that name a module are bytes a token; `kept` and `peak` of all."""

    config: ModelConfig
    tokens: int
    size: int
    """Bytes of a number of the training precision."""
    tensor: int = 1
    """Tensor-parallel ranks, which share heads and inner widths; the residual stream is whole on each."""
    expert: int = 1
    """Ranks that share the routed experts; each keeps the rows of as many tokens as it would without."""

    def kept(self, blocks: range, *, checkpointing: bool) -> int:
        """What `blocks`, and with the first and last of them embedding and head, keep for the backward pass."""
        inside = sum(self.inputs() if checkpointing else self.block(index) for index in blocks)
        outside = self.angles() * checkpointing + INTEGER + INTEGER * (blocks.start == 0)
        if blocks.stop == self.config.num_hidden_layers:
            outside += self.next_token(checkpointing) + self._heads() * self.head()
        return self.tokens * (inside + outside)

    def peak(self, blocks: range, *, checkpointing: bool) -> int:
        """What the backward pass needs besides at its worst: at the head two more of the logits or the head's gradient, or,
        when the head has given back what it kept, in the last block, which recomputes itself first if it is checkpointed."""
        last, head = blocks.stop - 1, 0
        in_block = self.tokens * (self.block_peak(last) + checkpointing * self.block(last)) + self.new_gradients(last)
        if blocks.stop == self.config.num_hidden_layers:
            in_block -= self.tokens * self._heads() * self.head()
            head = max(self.tokens * 2 * self.logits(), self.logits() // FLOAT * self.config.hidden_size * self.size)
        return max(head, in_block)

    def inputs(self) -> int:
        """All that a recomputed block keeps: its input, D."""
        return self.config.hidden_size * self.size

    def angles(self) -> int:
        """Cosine and sine of the token's position, P / 2 each, which recomputed blocks turn by again."""
        return self.config.qk_rope_head_dim * self.size

    def block(self, index: int) -> int:
        """One block with two norms, attention and either feed-forward layer."""
        return 2 * self.norm(self.config.hidden_size) + self.attention() + (self.mlp() if self._is_dense(index) else self.moe())

    def _is_dense(self, index: int) -> bool:
        """Multi-token prediction, the block after the last, has experts however many of the first are dense."""
        return index < min(self.config.first_k_dense_replace, self.config.num_hidden_layers)

    def norm(self, width: int) -> int:
        """An RMS norm keeps its input and one factor in float32."""
        return width * self.size + FLOAT

    def attention(self) -> int:
        """The input of the projections, what the latents' norms keep, the latents, and by what queries and keys are turned, P / 2
        complex numbers in float32 each; per head the kernel's operands, one
        row a document (queries and keys, values and output, padded to the width of keys where values are narrower) and one
        float, and the output as one packed row again."""
        c, heads = self.config, self.config.num_attention_heads // self.tensor
        width = c.qk_nope_head_dim + c.qk_rope_head_dim
        latent = self.norm(c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank * self.size
        query = 0 if c.q_lora_rank is None else self.norm(c.q_lora_rank) + c.q_lora_rank * self.size
        kernel = 2 * width + 2 * max(width, c.v_head_dim)
        turns = 2 * c.qk_rope_head_dim * FLOAT
        return c.hidden_size * self.size + latent + query + turns + heads * ((kernel + c.v_head_dim) * self.size + FLOAT)

    def mlp(self) -> int:
        """Input, and gate, its activation, up and their product."""
        return (self.config.hidden_size + 4 * self.config.intermediate_size // self.tensor) * self.size

    def moe(self) -> int:
        """Input (in float32 once more for the router, where the precision is lower), the router's scores and choices, what
        the routed experts keep, and the shared experts as one MLP."""
        c = self.config
        upcast = c.hidden_size * FLOAT if self.size < FLOAT else 0
        router = c.n_routed_experts * FLOAT + c.num_experts_per_tok * (INTEGER + 2 * FLOAT) + FLOAT * c.norm_topk_prob
        shared = 4 * c.n_shared_experts * c.moe_intermediate_size // self.tensor * self.size
        return c.hidden_size * self.size + upcast + router + c.num_experts_per_tok * self.routed() + shared

    def routed(self) -> int:
        """Of one token at one expert: gate and up, a weight and two places. Where experts are split, AutoEP keeps the row
        that came, the one that went back, gate, up, their activation and product, and five places."""
        c = self.config
        if self.expert > 1:
            return (2 * c.hidden_size + 4 * c.moe_intermediate_size) * self.size + FLOAT + 5 * INTEGER
        return (2 * c.moe_intermediate_size + 1) * self.size + 2 * INTEGER

    def head(self) -> int:
        """The last norm, the input of the head, place and target, and the logarithms of all probabilities."""
        return self.norm(self.config.hidden_size) + self.config.hidden_size * self.size + 2 * INTEGER + self.logits()

    def logits(self) -> int:
        """One float32 for each word of the vocabulary; tensor-parallel ranks do not share them."""
        return FLOAT * self.config.vocab_size

    def next_token(self, checkpointing: bool) -> int:
        """Multi-token prediction: a block, two norms and the joined input of 2D; its pass through the head is counted there."""
        if not self.config.num_nextn_predict_layers:
            return 0
        block = self.inputs() if checkpointing else self.block(self.config.num_hidden_layers)
        return block + 2 * self.norm(self.config.hidden_size) + 2 * self.config.hidden_size * self.size

    def _heads(self) -> int:
        return 1 + self.config.num_nextn_predict_layers

    def block_peak(self, index: int) -> int:
        """In the backward pass of a block: at each of the K experts the gradients and gathered rows, 2·D + 5·F, or AutoEP's
        on their way back, 4·D + 4·F; of a dense MLP the gradients of product, activation and both factors."""
        c = self.config
        if self._is_dense(index):
            return 4 * c.intermediate_size // self.tensor * self.size
        hidden, inner = (4, 4) if self.expert > 1 else (2, 5)
        return c.num_experts_per_tok * (hidden * c.hidden_size + inner * c.moe_intermediate_size) * self.size

    def new_gradients(self, index: int) -> int:
        """Bytes of weight gradients that are made before they are added to those that are there: of all experts of a block
        on this rank, or of the largest matrix of a dense MLP."""
        c = self.config
        if self._is_dense(index):
            return c.hidden_size * c.intermediate_size // self.tensor * self.size
        return c.n_routed_experts // self.expert * expert(c) * self.size
