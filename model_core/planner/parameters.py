"""How many parameters a model has, by part, on the whole or on one stage of a pipeline.

The same modules as `model_core.model`, counted from the configuration alone. Letters in comments are those of the model:
D hidden, H heads, R latent rank, P rotary width, N width without position, V value width, E experts, K chosen, F inner.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from model_core.config import ModelConfig
from model_core.planner.dense import DenseModel

Shape = ModelConfig | DenseModel
"""A model of our own, or a dense student."""

PARTS = ("embedding", "head", "attention", "dense_mlp", "shared_experts", "routed_experts", "router", "norms", "next_token")


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part; `next_token` is multi-token prediction, which stands apart and is in no total."""

    embedding: int
    head: int
    attention: int
    dense_mlp: int
    shared_experts: int
    routed_experts: int
    router: int
    norms: int
    next_token: int

    @property
    def total(self) -> int:
        """All but multi-token prediction, as models are called by."""
        return sum(self.by_part().values()) - self.next_token

    @property
    def trained(self) -> int:
        """All that memory holds: the total and multi-token prediction."""
        return self.total + self.next_token

    def by_part(self) -> dict[str, int]:
        """Numbers by the names of PARTS."""
        return asdict(self)


def parameters(config: Shape, blocks: range | None = None) -> Parameters:
    """The parameters of the whole model, or of the stage that holds `blocks`.

    A head that is the embedding is counted as the head; a first stage without the head holds it as the embedding. A student
    has no stages.
    """
    if isinstance(config, DenseModel):
        return _of_student(config)
    blocks = range(config.num_hidden_layers) if blocks is None else blocks
    is_first, is_last = blocks.start == 0, blocks.stop == config.num_hidden_layers
    table = config.vocab_size * config.hidden_size
    num_dense = sum(index < config.first_k_dense_replace for index in blocks)
    num_moe = len(blocks) - num_dense
    return Parameters(
        embedding=table * (is_first and not (is_last and config.tie_word_embeddings)),
        head=table * is_last,
        attention=len(blocks) * (whole_attention(config) + split_attention(config)),
        dense_mlp=num_dense * 3 * config.hidden_size * config.intermediate_size,
        shared_experts=num_moe * config.n_shared_experts * expert(config),
        routed_experts=num_moe * config.n_routed_experts * expert(config),
        router=num_moe * config.n_routed_experts * config.hidden_size,
        norms=len(blocks) * block_norms(config) + config.hidden_size * is_last,
        next_token=next_token(config) * is_last,
    )


def _of_student(config: DenseModel) -> Parameters:
    table, num_blocks = config.vocab_size * config.hidden_size, config.num_hidden_layers
    return Parameters(
        embedding=table * (not config.tie_word_embeddings), head=table, attention=num_blocks * config.attention(),
        dense_mlp=num_blocks * config.mlp(), shared_experts=0, routed_experts=0, router=0,
        norms=num_blocks * config.norms() + config.hidden_size, next_token=0,
    )  # fmt: skip


def count_parameters(config: Shape) -> tuple[int, int]:
    """All parameters, and those that one token is multiplied with: its K experts, and not the embedding, which is a
    look-up. Multi-token prediction is not counted. Source: DeepSeek-V3's 671B and 37B."""
    counted = parameters(config)
    if isinstance(config, DenseModel):
        return counted.total, counted.total - counted.embedding
    resting = config.n_routed_experts - config.num_experts_per_tok
    return counted.total, counted.total - counted.embedding - num_moe_blocks(config) * resting * expert(config)


def next_token(config: ModelConfig) -> int:
    """Multi-token prediction: a block of experts more, two norms and a matrix that join its inputs, and a norm before the
    shared head."""
    block = whole_attention(config) + split_attention(config) + block_norms(config)
    block += config.n_shared_experts * expert(config) + config.n_routed_experts * config.hidden_size
    joining = 2 * config.hidden_size * config.hidden_size + 3 * config.hidden_size
    return config.num_nextn_predict_layers * (block + joining) + next_token_experts(config)


def next_token_experts(config: ModelConfig) -> int:
    """The routed experts of multi-token prediction, which are split as others are."""
    return config.num_nextn_predict_layers * config.n_routed_experts * expert(config)


def whole_attention(config: ModelConfig) -> int:
    """A block's projections into the latents, D·(R + P) and the query's, which tensor-parallel ranks each hold whole."""
    latents = config.kv_lora_rank + config.qk_rope_head_dim + (config.q_lora_rank or 0)
    return config.hidden_size * latents


def split_attention(config: ModelConfig) -> int:
    """A block's projections to and from heads, which tensor-parallel ranks share: queries, R·H·(N + V), H·V·D."""
    c, heads = config, config.num_attention_heads
    query_width = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
    queries = (c.q_lora_rank or c.hidden_size) * query_width
    return queries + c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim) + heads * c.v_head_dim * c.hidden_size


def block_norms(config: ModelConfig) -> int:
    """A block's two norms and those of the latents."""
    return 2 * config.hidden_size + config.kv_lora_rank + (config.q_lora_rank or 0)


def expert(config: ModelConfig) -> int:
    """One expert: gate, up and down, 3·D·F."""
    return 3 * config.hidden_size * config.moe_intermediate_size


def num_moe_blocks(config: ModelConfig) -> int:
    """Blocks with experts, multi-token prediction not counted."""
    return max(0, config.num_hidden_layers - config.first_k_dense_replace)
