"""What Muon keeps and needs: one moment of each matrix, and at the update several copies of all matrices of one shape.

It updates the matrices of the blocks, stacks of experts included, shape by shape (`model_core.training.muon`), and lives
only where every rank holds all weights, in float32.
"""

from __future__ import annotations

from collections import Counter

from model_core.config import ModelConfig
from model_core.planner.activations import FLOAT
from model_core.planner.dense import DenseModel
from model_core.planner.parameters import Shape

NUM_ITERATIONS = 5
"""Of Newton-Schulz, as `model_core.training.muon` has them."""


def matrices(config: Shape) -> int:
    """Numbers in all matrices that Muon updates."""
    return sum(_numbers(shape) * count for shape, count in _shapes(config).items())


def muon_peak(config: Shape) -> int:
    """Bytes at the worst moment of the update, over the shapes.

    Of the matrices of a shape there are, in an iteration of Newton-Schulz, five copies and one Gram matrix each, or three
    copies and four Gram matrices, which is more where they are nearly square.
    """
    worst = 0
    for shape, count in _shapes(config).items():
        numbers = count * _numbers(shape)
        gram = numbers * min(shape[-2:]) // max(shape[-2:])
        worst = max(worst, 5 * numbers + gram, 3 * numbers + 4 * gram)
    return FLOAT * worst


def orthogonal_flops(config: Shape) -> int:
    """FLOPs of Newton-Schulz on all of them: in each iteration two products with the Gram matrix and one of it with itself."""
    total = 0
    for shape, count in _shapes(config).items():
        small, large = sorted(shape[-2:])
        stacked = count * _numbers(shape[:-2])
        total += NUM_ITERATIONS * stacked * 2 * small * small * (2 * large + small)
    return total


def _shapes(config: Shape) -> Counter[tuple[int, ...]]:
    """How many matrices, or stacks of them, of each shape the blocks have."""
    return config.matrices() if isinstance(config, DenseModel) else _of_own(config)


def _of_own(config: ModelConfig) -> Counter[tuple[int, ...]]:
    c, shapes = config, Counter[tuple[int, ...]]()
    width = c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
    queries = [(width, c.hidden_size)] if c.q_lora_rank is None else [(c.q_lora_rank, c.hidden_size), (width, c.q_lora_rank)]
    attention = [
        *queries, (c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size),
        (c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank),
        (c.hidden_size, c.num_attention_heads * c.v_head_dim),
    ]  # fmt: skip
    num_blocks = c.num_hidden_layers + c.num_nextn_predict_layers
    for index in range(num_blocks):
        shapes.update(attention)
        if index < min(c.first_k_dense_replace, c.num_hidden_layers):
            shapes.update(_mlp(c.hidden_size, c.intermediate_size))
            continue
        shapes[(c.n_routed_experts, 2 * c.moe_intermediate_size, c.hidden_size)] += 1
        shapes[(c.n_routed_experts, c.hidden_size, c.moe_intermediate_size)] += 1
        if c.n_shared_experts:
            shapes.update(_mlp(c.hidden_size, c.moe_intermediate_size * c.n_shared_experts))
    shapes[(c.hidden_size, 2 * c.hidden_size)] += c.num_nextn_predict_layers
    return shapes


def _mlp(hidden: int, inner: int) -> list[tuple[int, ...]]:
    return [(inner, hidden), (inner, hidden), (hidden, inner)]


def _numbers(shape: tuple[int, ...]) -> int:
    numbers = 1
    for length in shape:
        numbers *= length
    return numbers
