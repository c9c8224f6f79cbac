"""The model as decoding wants it: the same numbers as `Transformer.forward`, in as few operators as can be.

Built from weights that do not change meanwhile. Against the plain absorbed path, its slow twin in the tests: norms are part of the
matrix that follows; query and latent are one product; the up-projections are absorbed beforehand where that is cheaper;
the rotary turn is one complex product; residuals are added in place; experts see only their own tokens.
Letters: B rows, T new tokens a row, N = B · T, S cached tokens, D hidden, H heads, R latent rank, P rotary width,
C = R + P, V value width, K chosen experts, F inner width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.model import Transformer
from model_core.model.attention import LatentAttention
from model_core.model.moe import MLP, MoE
from model_core.model.norm import RMSNorm
from model_core.model.transformer import Block
from model_core.rollout.cache import LatentCache
from model_core.rollout.experts import WIDE_UP_TO_TOKENS, Mixture, Wide

ABSORBED_UP_TO = 2.0
"""A projection is absorbed when the product costs at most so much more; it saves an operator and a transposition."""

READ_UP_TO_TOKENS = 128
"""Prompts up to here are read as they are decoded; longer ones by the model, whose attention keeps no scores."""


class Place(NamedTuple):
    """Where a step's tokens stand: the turn of their rotary pairs, their slots in the cache, and what each may see."""

    turn_NQ: Tensor
    slots_N: Tensor
    bias_BXS: Tensor
    """0 or -inf; X is 1 for one new token a row, else T · H."""


class Decoder:
    """Decodes from the weights that `model` had when this was built."""

    @torch.no_grad()
    def __init__(self, model: Transformer) -> None:
        self.model, self.config = model, model.config
        self.embedding, self.head = model.model.embed_tokens.weight, model.lm_head.weight
        self.norm = Norm(model.model.norm)
        self.turns = torch.complex(model.cos.float(), model.sin.float())
        self.layers = [Layer(block) for block in model.blocks]

    def read(self, cache: LatentCache, tokens_BT: Tensor, lengths_B: Tensor) -> tuple[Tensor, Place | None]:
        """Fills an empty cache with prompts, padded on the right; returns their last hidden states BTD, normalised.

        The place is that of all B · T tokens; it is not known for long prompts.
        """
        num_rows, longest = tokens_BT.shape
        if longest > READ_UP_TO_TOKENS:
            hidden_BTD, latents = self.model.hidden(tokens_BT)
            cache.fill(latents, lengths_B)
            return hidden_BTD, None
        hidden_ND, place = self.hidden(cache, tokens_BT)
        cache.begin(lengths_B, longest)
        return hidden_ND.view(num_rows, longest, -1), place

    def step(self, cache: LatentCache, tokens_BT: Tensor, grows_B: Tensor | None = None) -> Tensor:
        """Feeds T tokens to each of the first B rows and returns the logits BTV of what follows each.

        The rows grow by T, but those where `grows_B` is false keep their length; what they give means nothing.
        """
        hidden_ND, _place = self.hidden(cache, tokens_BT)
        num_rows, num_new = tokens_BT.shape
        cache.filled_B[:num_rows] += num_new if grows_B is None else grows_B * num_new
        cache.longest += num_new
        return self.logits(hidden_ND).view(num_rows, num_new, -1)

    def hidden(self, cache: LatentCache, tokens_BT: Tensor) -> tuple[Tensor, Place]:
        """Last hidden states, normalised. The latents of the tokens are written behind the rows, which do not grow."""
        place = self.place(cache, tokens_BT)
        x_ND = self.embedding[tokens_BT.flatten()]
        for layer, block in zip(self.layers, cache.layers, strict=False):
            layer.step(x_ND, place, block)
        return self.norm(x_ND), place

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Logits NV of last hidden states."""
        return F.linear(hidden_ND, self.head)

    def place(self, cache: LatentCache, tokens_BT: Tensor) -> Place:
        """The place of `tokens_BT` behind what the first B rows hold."""
        num_rows, num_new = tokens_BT.shape
        positions_BT = cache.filled_B[:num_rows, None]
        if num_new > 1:
            positions_BT = positions_BT + cache.numbers_S[:num_new]
        seen_S = cache.numbers_S[: cache.longest + num_new]
        bias_BXS = torch.where(seen_S > positions_BT[..., None], cache.closed, cache.open)
        if num_new > 1:
            bias_BXS = bias_BXS.repeat_interleave(self.config.num_attention_heads, dim=1)
        turn_NQ = self.turns.index_select(0, positions_BT.flatten())
        return Place(turn_NQ, (cache.starts_B1[:num_rows] + positions_BT).flatten(), bias_BXS)


class Layer:
    """One block; `step` adds to the residual stream in place."""

    def __init__(self, block: Block) -> None:
        self.attention = Attention(block.self_attn, block.input_layernorm)
        self.norm, self.mlp = Norm(block.post_attention_layernorm), block.mlp
        dense = block.mlp.shared_experts if isinstance(block.mlp, MoE) else block.mlp
        self.gate_up: Tensor | None = None
        if isinstance(dense, MLP):
            self.gate_up, self.down = torch.cat([dense.gate_proj.weight, dense.up_proj.weight]), dense.down_proj.weight.t()
        if isinstance(block.mlp, MoE):
            self.mixture = Mixture(block.mlp.experts)
            self.wide = Wide(block.mlp) if Wide.suits(block.mlp) else None

    def step(self, x_ND: Tensor, place: Place, cache_BSC: Tensor) -> None:
        """Attention, then dense, shared and routed experts."""
        self.attention.step(x_ND, place, cache_BSC)
        y_ND = self.norm(x_ND)
        if not isinstance(self.mlp, MoE):
            self._dense(x_ND, y_ND)
            return
        weights_NK, chosen_NK = self.mlp.gate(y_ND)
        if self.wide is not None and len(x_ND) <= WIDE_UP_TO_TOKENS:
            self.wide.add(x_ND, y_ND, chosen_NK, weights_NK)
        else:
            self._dense(x_ND, y_ND)
            x_ND.add_(self.mixture(y_ND, chosen_NK, weights_NK))

    def _dense(self, x_ND: Tensor, y_ND: Tensor) -> None:
        if self.gate_up is not None:
            gate_NF, up_NF = F.linear(y_ND, self.gate_up).chunk(2, dim=-1)
            x_ND.addmm_(F.silu(gate_NF).mul_(up_NF), self.down)


class Attention:
    """Latent attention with absorbed projections."""

    def __init__(self, source: LatentAttention, norm: RMSNorm) -> None:
        c = self.config = source.config
        heads, rank, nope = c.num_attention_heads, c.kv_lora_rank, c.qk_nope_head_dim
        self.input_norm, self.latent_norm = Norm(norm), Norm(source.kv_a_layernorm)
        weight_D = self.input_norm.weight
        up_HKR = source.kv_b_proj.weight.view(heads, -1, rank)
        self.up_key, up_value_HVR = up_HKR[:, :nope], up_HKR[:, nope:]
        key_CD = source.kv_a_proj_with_mqa.weight * weight_D
        if c.q_lora_rank is None:
            query, self.query_norm = source.q_proj.weight * weight_D, None
        else:
            query, self.query_norm = source.q_b_proj.weight * Norm(source.q_a_layernorm).weight, Norm(source.q_a_layernorm)
        query_HKD = query.view(heads, -1, query.shape[1]) * source.scale
        width = query.shape[1]
        self.absorbs_key = rank * width <= ABSORBED_UP_TO * nope * (width + rank)
        if self.absorbs_key:
            latent_HRD = torch.matmul(self.up_key.transpose(1, 2), query_HKD[:, :nope])
            query_HKD = torch.cat([latent_HRD, query_HKD[:, nope:]], dim=1)
        self.fused = self.absorbs_key and c.q_lora_rank is None
        first = query_HKD.flatten(0, 1) if c.q_lora_rank is None else source.q_a_proj.weight * weight_D
        self.first = torch.cat([first, key_CD]).t().contiguous()
        self.query = None if c.q_lora_rank is None else query_HKD.flatten(0, 1).t().contiguous()
        self._absorb_value(source.o_proj.weight, up_value_HVR)

    def _absorb_value(self, out_DX: Tensor, up_value_HVR: Tensor) -> None:
        heads, value, rank = up_value_HVR.shape
        hidden = len(out_DX)
        self.up_value: Tensor | None = up_value_HVR.transpose(1, 2)
        self.out = out_DX.t()
        if rank * hidden <= ABSORBED_UP_TO * value * (rank + hidden):
            self.up_value = None
            self.out = torch.matmul(up_value_HVR.transpose(1, 2), out_DX.t().view(heads, value, hidden)).flatten(0, 1)

    def step(self, x_ND: Tensor, place: Place, cache_BSC: Tensor) -> None:
        """Writes the latents of `x_ND` to their slots, attends, and adds the result to `x_ND`."""
        c = self.config
        heads_NGC = self._heads(self.input_norm.unit(x_ND))
        self._turn(heads_NGC, place.turn_NQ)
        key_NC = heads_NGC[:, -1]
        latent_NR = key_NC[:, : c.kv_lora_rank]
        latent_NR.div_(self.latent_norm.length(latent_NR)).mul_(self.latent_norm.weight)
        cache_BSC.view(-1, cache_BSC.shape[-1]).index_copy_(0, place.slots_N, key_NC)
        num_rows, _, longest = place.bias_BXS.shape
        query_BXC = heads_NGC[:, :-1]
        if len(query_BXC) != num_rows:
            query_BXC = query_BXC.reshape(num_rows, -1, heads_NGC.shape[-1])
        seen_BSC = cache_BSC[:num_rows, :longest]
        scores_BXS = torch.baddbmm(place.bias_BXS, query_BXC, seen_BSC.transpose(1, 2))
        mixed_BXR = torch.bmm(scores_BXS.softmax(dim=-1), seen_BSC[..., : c.kv_lora_rank])
        self._add_output(x_ND, mixed_BXR.view(len(x_ND), c.num_attention_heads, -1))

    def _heads(self, y_ND: Tensor) -> Tensor:
        """The queries of all heads in the latent space and, last, what the cache stores: N, G = H + 1, C. Not turned yet."""
        c = self.config
        width = c.kv_lora_rank + c.qk_rope_head_dim
        first = torch.mm(y_ND, self.first)
        if self.fused:
            return first.view(len(y_ND), -1, width)
        query, key_NC = first[:, :-width], first[:, -width:]
        if self.query is not None and self.query_norm is not None:
            query = torch.mm(self.query_norm.unit(query), self.query)
        query_NHK = query.view(len(y_ND), c.num_attention_heads, -1)
        if not self.absorbs_key:
            nope_NHK, rope_NHP = query_NHK[..., : c.qk_nope_head_dim], query_NHK[..., c.qk_nope_head_dim :]
            latent_NHR = torch.matmul(nope_NHK.transpose(0, 1), self.up_key).transpose(0, 1)
            query_NHK = torch.cat([latent_NHR, rope_NHP], dim=-1)
        return torch.cat([query_NHK, key_NC[:, None]], dim=1)

    def _turn(self, heads_NGC: Tensor, turn_NQ: Tensor) -> None:
        """Turns the rotary pairs (0, 1), (2, 3) … in place."""
        rank = self.config.kv_lora_rank
        if rank % 2 == 0 and heads_NGC.dtype == torch.float32:
            pairs_NGQ = torch.view_as_complex(heads_NGC.view(*heads_NGC.shape[:2], -1, 2))[..., rank // 2 :]
            pairs_NGQ.mul_(turn_NQ[:, None])
        else:
            pairs_NGP = heads_NGC[..., rank:]
            pairs_NGQ2 = pairs_NGP.float().contiguous().view(*pairs_NGP.shape[:2], -1, 2)
            turned_NGQ = torch.view_as_complex(pairs_NGQ2) * turn_NQ[:, None]
            pairs_NGP.copy_(torch.view_as_real(turned_NGQ).flatten(-2))

    def _add_output(self, x_ND: Tensor, mixed_NHR: Tensor) -> None:
        if self.up_value is not None:
            mixed_NHR = torch.matmul(mixed_NHR.transpose(0, 1), self.up_value).transpose(0, 1)
        x_ND.addmm_(mixed_NHR.flatten(1), self.out)


class Norm:
    """RMS norm: x / length · weight, where length = √(|x|² + width · eps) and the weight is √width times the published one."""

    def __init__(self, source: RMSNorm) -> None:
        width = len(source.weight)
        self.weight = source.weight * math.sqrt(width)
        self.floor = torch.full((), math.sqrt(width * source.eps), device=source.weight.device)

    def length(self, x: Tensor) -> Tensor:
        """Of the last dimension, which is kept; float32."""
        length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return length.hypot_(self.floor)

    def unit(self, x: Tensor) -> Tensor:
        """x / length: the weight is in the matrix that follows."""
        unit: Tensor = x / self.length(x)
        return unit.to(x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return self.unit(x).mul_(self.weight)
