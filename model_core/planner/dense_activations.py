"""Bytes that the passes of a dense student keep and need besides, as `activations` has them for our own model.

Read from what each module of transformers 5 saves for autograd where attention is torch's kernel. Letters as in `dense`.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_core.planner.activations import FLOAT, INTEGER
from model_core.planner.dense import DenseModel


@dataclass(frozen=True)
class DenseActivations:
    """Bytes of one pass over `tokens`. The methods that name a module are bytes a token; `kept` and `peak` of all."""

    config: DenseModel
    tokens: int
    size: int
    """Bytes of a number of the training precision."""

    def kept(self, *, checkpointing: bool) -> int:
        """What all blocks, embedding and head keep for the backward pass; the angles, one row for all rows, are left out."""
        inside = self.config.hidden_size * self.size if checkpointing else self.block()
        return self.tokens * (self.config.num_hidden_layers * inside + 2 * INTEGER + self.head())

    def peak(self, *, checkpointing: bool) -> int:
        """What the backward pass needs besides at its worst: at the head two more of the logits or the head's gradient, or,
        when the head has given back what it kept, in the last block, which recomputes itself first if it is checkpointed."""
        c = self.config
        gradients = c.hidden_size * c.intermediate_size * self.size
        inside = 4 * c.intermediate_size * self.size + checkpointing * self.block()
        head = max(self.tokens * 2 * self.logits(), c.vocab_size * c.hidden_size * self.size)
        return max(head, self.tokens * (inside - self.head()) + gradients)

    def block(self) -> int:
        """Two norms, attention, MLP."""
        return 2 * self.norm(self.config.hidden_size) + self.attention() + self.mlp()

    def norm(self, width: int) -> int:
        """Input and normed input, in float32 the one, and one factor."""
        return width * (FLOAT + self.size) + FLOAT

    def attention(self) -> int:
        """The input of the projections, a Qwen3's two norms more, and the kernel's operands: queries, keys and values, of as
        few heads as there are, the output, and one float per head of the queries."""
        c, width = self.config, (self.config.num_attention_heads + self.config.num_key_value_heads) * self.config.head_dim
        normed = 0
        if c.model_type == "qwen3":
            normed = (c.num_attention_heads + c.num_key_value_heads) * self.norm(c.head_dim)
        return c.hidden_size * self.size + normed + 2 * width * self.size + c.num_attention_heads * FLOAT

    def mlp(self) -> int:
        """Input, and gate, its activation, up and their product."""
        return (self.config.hidden_size + 4 * self.config.intermediate_size) * self.size

    def head(self) -> int:
        """The last norm, the input of the head, place and target, and the logarithms of all probabilities."""
        return self.norm(self.config.hidden_size) + self.config.hidden_size * self.size + 2 * INTEGER + self.logits()

    def logits(self) -> int:
        """One float32 for each word of the vocabulary."""
        return FLOAT * self.config.vocab_size
