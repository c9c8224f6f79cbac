"""The whole model, in the order of the paper: embedding, blocks of latent attention and experts, norm, head.

Parameter names are those of the published checkpoints but for the routed experts, which are stacked here and written
one by one by `model_core.model.exchange`. Letters: B batch, T tokens, D hidden, V vocabulary, C numbers a cached token.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model.attention import LatentAttention
from model_core.model.moe import MLP, Experts, Gate, MoE
from model_core.model.norm import RMSNorm
from model_core.model.packing import Packing
from model_core.model.rope import angles


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward (dense in the first blocks, experts after)."""

    def __init__(self, config: ModelConfig, *, is_dense: bool) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = LatentAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size) if is_dense else MoE(config)

    def forward(
        self, x_BTD: Tensor, cos_BTQ: Tensor, sin_BTQ: Tensor, packing: Packing | None = None
    ) -> tuple[Tensor, Tensor]:
        attended, latent_BTC = self.self_attn(self.input_layernorm(x_BTD), cos_BTQ, sin_BTQ, packing)
        x_BTD = x_BTD + attended
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD)), latent_BTC


class SharedHead(nn.Module):
    """The norm before the head of the token after the next; the head itself is the model's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class NextTokenBlock(Block):
    """Multi-token prediction: from what the model knows at token t and from token t+1 itself, what follows t+1.

    Source: DeepSeek-V3, section 2.2, equations 21 to 23; what it takes is the hidden state after the last norm, as
    the published weights' engines do.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, is_dense=False)
        self.enorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def join(self, hidden_BTD: Tensor, next_BTD: Tensor) -> Tensor:
        """The block's input, BTD, from hidden states and the embeddings of the tokens that come next."""
        joined: Tensor = self.eh_proj(torch.cat([self.enorm(next_BTD), self.hnorm(hidden_BTD)], dim=-1))
        return joined


class Trunk(nn.Module):
    """What the published names call `model`: everything but the head. A block of multi-token prediction comes last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = _embedding(config.vocab_size, config.hidden_size)
        blocks = [Block(config, is_dense=index < config.first_k_dense_replace) for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList([*blocks, *(NextTokenBlock(config) for _ in range(config.num_nextn_predict_layers))])
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Transformer(nn.Module):
    """A DeepSeek-style language model; `is_blank` leaves its weights and angles to whoever writes them."""

    cos: Tensor
    sin: Tensor
    unpublished: ClassVar[tuple[str, ...]] = ()
    """Names in its state that stand in no file of weights."""

    def __init__(self, config: ModelConfig, *, is_blank: bool = False) -> None:
        super().__init__()
        assert config.vocab_size > 0, "the vocabulary's size is set from the tokenizer"
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        cos, sin = (torch.empty(0), torch.empty(0)) if is_blank else angles(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        if not is_blank:
            self.initialise()

    def forward(
        self, tokens_BT: Tensor, *, attention_mask: Tensor | None = None, packing: Packing | None = None,
        at_M: Tensor | None = None, next_at_M: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        """Logits BTV, or with `at_M` MV: those of the tokens at these places of the flattened batch only.

        Rows are padded on the right: causality alone then keeps padding out of every real token, so `attention_mask`
        changes no logit of a real token and is not looked at here; it says which tokens count as load of the experts
        (`model_core.training.balance`). With `packing` the batch is one row of documents (B is 1). With `next_at_M` comes
        also what multi-token prediction says at these places, MV: the token after the next.
        """
        hidden_BTD, _latents = self.hidden(tokens_BT, packing)
        logits: Tensor = self.lm_head(_at(hidden_BTD, at_M))
        if next_at_M is None:
            return logits
        next_BTD = self.next_hidden(hidden_BTD, tokens_BT, packing)
        return logits, self.lm_head(_at(next_BTD, next_at_M))

    def hidden(self, tokens_BT: Tensor, packing: Packing | None = None) -> tuple[Tensor, list[Tensor]]:
        """Last hidden states BTD, normalised, and each layer's latents BTC for a cache."""
        cos, sin = self._angles(tokens_BT, packing)
        x_BTD, latents = self.model.embed_tokens(tokens_BT), []
        for layer in self.blocks:
            x_BTD, latent_BTC = layer(x_BTD, cos, sin, packing)
            latents.append(latent_BTC)
        return self.model.norm(x_BTD), latents

    def next_hidden(self, hidden_BTD: Tensor, tokens_BT: Tensor, packing: Packing | None = None) -> Tensor:
        """Hidden states BTD from which the token after the next is told at each place but a document's last, whose next
        token is not known. Raises AssertionError without multi-token prediction."""
        block = self.next_token_block
        assert block is not None, "the model has no multi-token prediction: num_nextn_predict_layers is 0"
        next_BTD = self.model.embed_tokens(tokens_BT.roll(-1, dims=1))
        x_BTD, _latents = block(block.join(hidden_BTD, next_BTD), *self._angles(tokens_BT, packing), packing)
        normalised: Tensor = block.shared_head.norm(x_BTD)
        return normalised

    def _angles(self, tokens_BT: Tensor, packing: Packing | None) -> tuple[Tensor, Tensor]:
        if packing is not None:
            return self.cos[packing.positions_1N], self.sin[packing.positions_1N]
        num = tokens_BT.shape[1]
        return self.cos[None, :num].expand(len(tokens_BT), -1, -1), self.sin[None, :num].expand(len(tokens_BT), -1, -1)

    @property
    def blocks(self) -> list[Block]:
        """The blocks that every token passes, in order."""
        blocks: Any = list(self.model.layers)[: self.config.num_hidden_layers]
        return blocks  # type: ignore[no-any-return]

    @property
    def next_token_block(self) -> NextTokenBlock | None:
        """The block of multi-token prediction, if the model has one."""
        block = self.model.layers[-1]
        return block if isinstance(block, NextTokenBlock) else None

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


def _embedding(vocab_size: int, hidden_size: int) -> nn.Embedding:
    """On the meta device without torch's own draw, which there loads the compiler for a second."""
    if torch.get_default_device().type != "meta":
        return nn.Embedding(vocab_size, hidden_size)
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(vocab_size, hidden_size), freeze=False)  # type: ignore[no-untyped-call]
    return made


def _at(hidden_BTD: Tensor, at_M: Tensor | None) -> Tensor:
    return hidden_BTD if at_M is None else hidden_BTD.flatten(0, 1).index_select(0, at_M)
