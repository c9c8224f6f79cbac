"""Tensor parallelism by DeepSpeed's AutoTP: which matrices are cut, and what latent attention needs besides.

Attention is cut by heads and gated MLPs by inner width, each pair of projections so that one sum over the ranks comes
after it. What all heads share stays whole: the compressions into latents, the norms, gates, routed experts, embedding, head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model_core.model.attention import LatentAttention

COLUMNS = ("q_proj", "q_b_proj", "kv_b_proj", "gate_proj", "up_proj")
"""Cut by output: each rank has the rows of its heads, or of its inner units."""
ROWS = ("o_proj", "down_proj")
"""Cut by input; their outputs are summed over the ranks."""


def tensor_parallel(num_ranks: int) -> dict[str, Any]:
    """AutoTP's part of DeepSpeed's configuration."""
    specs = [
        {"patterns": [rf".*\.{name}\.weight$"], "partition_type": kind}
        for kind, names in (("column", COLUMNS), ("row", ROWS)) for name in names
    ]
    return {"autotp_size": num_ranks, "partition_config": {"use_default_specs": False, "layer_specs": specs}}


def fit_heads(model: nn.Module, num_ranks: int) -> None:
    """Makes attention reckon with this rank's heads, and sum what they give back to the key that all heads share.

    The rotary part of the key goes to the heads of every rank without a projection that is cut; AutoTP sums the gradients
    of those projections' inputs only.
    """
    for attention in model.modules():
        if isinstance(attention, LatentAttention):
            heads = attention.config.num_attention_heads // num_ranks
            attention.config = attention.config.model_copy(update={"num_attention_heads": heads})
            attention.kv_a_proj_with_mqa.register_forward_hook(_share_rotary_key(attention.config.kv_lora_rank))


def cut_dimension(name: str) -> int | None:
    """The dimension along which the weight of this name is cut; None when it is whole."""
    module, _dot, attribute = name.rpartition(".")
    last = module.rpartition(".")[2]
    if attribute != "weight":  # routed experts are stacks with names of their own
        return None
    return 0 if last in COLUMNS else 1 if last in ROWS else None


def _share_rotary_key(rank: int) -> Any:
    def share(_module: nn.Module, _inputs: Any, out_BTC: Tensor) -> Tensor:
        return torch.cat([out_BTC[..., :rank], _Shared.apply(out_BTC[..., rank:])], dim=-1)  # type: ignore[no-untyped-call]

    return share


class _Shared(torch.autograd.Function):
    """Passes a tensor on to the heads of all ranks: the same forward, a sum of gradients backward."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        from deepspeed.utils import groups

        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=groups.get_tensor_model_parallel_group())
        return summed
