"""Layer-wise learning rates: which factor of the peak rate each part of a model has, from names and shape alone.

A block has `layer_lr_decay` of the rate of the block above it, and each kind of weight its factor in `RateFactors`; both
are multiplied. The trainer makes its parameter groups from `rate_factor_of`, a page its plot from `part_rates`.
Source: discriminative rates, arXiv 1801.06146 (ULMFiT), section 3.2; the kinds are ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from model_core.config.base import StrictModel
from model_core.config.model import ModelConfig

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")
_MAX = 100.0


class RateFactors(StrictModel):
    """A factor of the learning rate for each kind of weight; 1 leaves the rate as it is, 0 freezes the kind."""

    embedding: float = Field(1.0, ge=0, le=_MAX)
    """Token embedding, and a head that is tied to it."""
    attention: float = Field(1.0, ge=0, le=_MAX)
    """Projections of the attention."""
    mlp: float = Field(1.0, ge=0, le=_MAX)
    """Dense MLPs and shared experts."""
    experts: float = Field(1.0, ge=0, le=_MAX)
    """Routed experts."""
    router: float = Field(1.0, ge=0, le=_MAX)
    """Gates that choose the experts; their bias is not trained by gradient."""
    norm: float = Field(1.0, ge=0, le=_MAX)
    """Norms, wherever they are."""
    head: float = Field(1.0, ge=0, le=_MAX)
    """Output head, where it is not tied, and that of a reward model."""
    mtp: float = Field(1.0, ge=0, le=_MAX)
    """Projection of multi-token prediction into its block."""


KINDS = tuple(RateFactors.model_fields)
"""The kinds of weight that have a factor of their own."""


class Blocks(Protocol):
    """What of a model's shape decides about rates."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def tie_word_embeddings(self) -> bool: ...


@dataclass(frozen=True)
class PartRate:
    """The factor of one kind of weight in one part of the model."""

    part: str
    """"embedding", "block 0" and so on, "head"."""
    kind: str
    factor: float


def kind_of(name: str, *, is_tied: bool) -> str:
    """The kind of the weight called `name`, as the model or DeepSpeed's split experts name it."""
    words = name.split(".")
    module = words[-2] if len(words) > 1 else ""
    if module == "lm_head":
        return "embedding" if is_tied else "head"
    if module == "score":
        return "head"
    for kind, found in (
        ("embedding", module == "embed_tokens"), ("norm", module.endswith("norm")), ("attention", "self_attn" in words),
        ("mtp", module == "eh_proj"), ("router", "router" in words or (module == "gate" and "mlp" in words)),
        ("experts", "experts" in words),
    ):  # fmt: skip
        if found:
            return kind
    return "mlp"


def blocks_below_top(name: str, shape: Blocks) -> int:
    """How many blocks are above the weight called `name`; the embedding is below all, and so is a head tied to it."""
    num_blocks = shape.num_hidden_layers + int(getattr(shape, "num_nextn_predict_layers", 0))
    if block := _BLOCK.match(name):
        return num_blocks - 1 - int(block[1])
    return num_blocks if kind_of(name, is_tied=shape.tie_word_embeddings) == "embedding" else 0


def rate_factor_of(name: str, shape: Blocks, *, layer_lr_decay: float, lr_factors: RateFactors) -> float:
    """Factor of the peak rate that the weight called `name` is trained with."""
    kind = kind_of(name, is_tied=shape.tie_word_embeddings)
    return float(getattr(lr_factors, kind)) * layer_lr_decay ** blocks_below_top(name, shape)


def part_rates(shape: Blocks, *, layer_lr_decay: float, lr_factors: RateFactors) -> list[PartRate]:
    """Every part of a model of `shape` from below to above, and in each the kinds of weight that are there."""
    num_blocks = shape.num_hidden_layers + int(getattr(shape, "num_nextn_predict_layers", 0))
    decays = {"embedding": layer_lr_decay**num_blocks, "head": 1.0}
    kinds = {"embedding": ["embedding"]}
    for block in range(num_blocks):
        decays[f"block {block}"] = layer_lr_decay ** (num_blocks - 1 - block)
        kinds[f"block {block}"] = _kinds_of_block(shape, block)
    kinds["head"] = ["norm"] if shape.tie_word_embeddings else ["norm", "head"]
    return [
        PartRate(part, kind, float(getattr(lr_factors, kind)) * decays[part]) for part, here in kinds.items() for kind in here
    ]


def _kinds_of_block(shape: Blocks, block: int) -> list[str]:
    is_ahead = block >= shape.num_hidden_layers
    if not isinstance(shape, ModelConfig):
        return ["attention", "mlp", "norm"]
    is_dense = block < shape.first_k_dense_replace and not is_ahead
    with_mlp = ["mlp"] if is_dense or shape.n_shared_experts else []
    return ["attention", *with_mlp, *([] if is_dense else ["experts", "router"]), "norm", *(["mtp"] if is_ahead else [])]
