"""The shape of a dense student, as its Hugging Face config.json says it, and its numbers. Imports without torch.

`model_core.causal.shape` has the same shape complete, for making the model. Letters: D hidden, H heads, K heads of keys and
values, W head width, F inner, L blocks, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field

from model_core.config import StrictModel
from model_core.errors import ConfigError

Kind = Literal["qwen2", "qwen3", "llama"]
_DEFAULT_KV_HEADS = {"qwen2": 32, "qwen3": 32}
_DEFAULT_WIDTH = {"qwen3": 128}
_DEFAULT_CONTEXT = {"qwen2": 32768, "qwen3": 32768, "llama": 2048}
"""What transformers takes where a config.json says nothing."""


class DenseModel(StrictModel):
    """What of a config.json decides about memory and FLOPs."""

    model_type: Kind
    """Class of the model."""
    vocab_size: int = Field(ge=0)
    """Rows of the embedding; 0: as many as the tokenizer will have."""
    hidden_size: int = Field(ge=1)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(ge=1)
    """Blocks."""
    num_attention_heads: int = Field(ge=1)
    """Heads of the queries."""
    num_key_value_heads: int = Field(ge=1)
    """Heads of keys and values."""
    head_dim: int = Field(ge=1)
    """Width of a head."""
    intermediate_size: int = Field(ge=1)
    """Inner width of the MLP."""
    max_position_embeddings: int = Field(ge=1)
    """Longest sequence, in tokens."""
    tie_word_embeddings: bool = False
    """Whether the head is the embedding."""
    attention_bias: bool = False
    """Whether all projections of attention have a bias; those to queries, keys and values of a Qwen2 always have."""
    mlp_bias: bool = False
    """Whether the projections of a Llama's MLP have one."""

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "config.json") -> Self:
        """The shape in a config.json; `where` it stands is said in the error. Raises ConfigError for another class, and where
        a size lacks or is none."""
        kind = str(values.get("model_type"))
        if kind not in get_args(Kind):
            raise ConfigError(f"{where} is of a {kind!r} model; a student is one of {', '.join(get_args(Kind))}.", field="model")
        heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
        shape = {"max_position_embeddings": _DEFAULT_CONTEXT[kind], "num_key_value_heads": _DEFAULT_KV_HEADS.get(kind, heads)}
        if isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            shape["head_dim"] = _DEFAULT_WIDTH.get(kind, hidden // heads)
        shape |= {name: values[name] for name in cls.model_fields if values.get(name) is not None}
        return cls.parse(shape, prefix=where)

    @property
    def num_nextn_predict_layers(self) -> int:
        """Blocks of multi-token prediction: there are none."""
        return 0

    def attention(self) -> int:
        """Numbers of a block's attention: D·W·(2·H + 2·K), biases."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        biases = (queries + 2 * keys) * (self.attention_bias or self.model_type == "qwen2")
        biases += self.hidden_size * (self.attention_bias and self.model_type != "qwen2")
        return 2 * self.hidden_size * (queries + keys) + biases

    def mlp(self) -> int:
        """Numbers of a block's MLP: 3·D·F, biases."""
        return 3 * self.hidden_size * self.intermediate_size + self.mlp_bias * (2 * self.intermediate_size + self.hidden_size)

    def norms(self) -> int:
        """Numbers of a block's norms: two of D, and a Qwen3's of queries and keys."""
        return 2 * self.hidden_size + 2 * self.head_dim * (self.model_type == "qwen3")

    def largest_tensor(self) -> int:
        """Numbers of the largest weight."""
        inner = max(self.intermediate_size, self.num_attention_heads * self.head_dim)
        return self.hidden_size * max(inner, self.vocab_size)

    def matrices(self) -> Counter[tuple[int, ...]]:
        """How many matrices of each shape the blocks have, as Muon takes them."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        inner, hidden = self.intermediate_size, self.hidden_size
        attention = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
        shapes = [*attention, (inner, hidden), (inner, hidden), (hidden, inner)]
        return Counter({shape: count * self.num_hidden_layers for shape, count in Counter(shapes).items()})
