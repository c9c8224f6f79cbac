"""The experts of a decoding step, without gradients: three ways that give the same numbers.

Letters: N tokens, D hidden, E routed experts, A all experts, the shared ones last, K chosen, M = N · K pairs, F inner width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.model.moe import Experts, MoE

WIDE_UP_TO_TOKENS, WIDE_UP_TO_NUMBERS = 16, 1 << 18
"""So few tokens pass all experts of a layer that has so few weights: three operators instead of twenty."""
ONE_BY_ONE_UP_TO_TOKENS = 2
"""In larger layers, on a CPU, so few tokens pass their experts one after another; more are sorted by expert."""


class Wide:
    """All experts of a layer as one wide dense one; what a token did not choose has the weight 0."""

    def __init__(self, moe: MoE) -> None:
        gate_EFD, up_EFD = moe.experts.gate_up_proj.chunk(2, dim=1)
        parts = [gate_EFD.flatten(0, 1), up_EFD.flatten(0, 1), moe.experts.down_proj.transpose(1, 2).flatten(0, 1)]
        if (shared := moe.shared_experts) is not None:
            more = (shared.gate_proj.weight, shared.up_proj.weight, shared.down_proj.weight.t())
            parts = [torch.cat([part, own]) for part, own in zip(parts, more, strict=True)]
        self.gate_up, self.down = torch.cat(parts[:2]).t().contiguous(), parts[2].contiguous()
        num_routed, num_all = gate_EFD.shape[0], len(self.down) // gate_EFD.shape[1]
        self.weights_1A = (torch.arange(num_all, device=self.down.device) >= num_routed).to(self.down.dtype)[None]

    @staticmethod
    def suits(moe: MoE) -> bool:
        """Whether the layer is small enough."""
        return moe.experts.gate_up_proj.numel() + moe.experts.down_proj.numel() <= WIDE_UP_TO_NUMBERS

    def add(self, out_ND: Tensor, x_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> None:
        """Adds the experts' outputs to `out_ND`."""
        weights_NA = self.weights_1A.repeat(len(x_ND), 1).scatter_(1, chosen_NK, weights_NK.to(x_ND.dtype))
        gate_NX, up_NX = torch.mm(x_ND, self.gate_up).chunk(2, dim=-1)
        inner_NX = F.silu(gate_NX).mul_(up_NX)
        inner_NX.view(*weights_NA.shape, -1).mul_(weights_NA[..., None])
        out_ND.addmm_(inner_NX, self.down)


class Mixture:
    """A layer's routed experts, weighted and summed."""

    def __init__(self, experts: Experts) -> None:
        self.up_EDF, self.down_EFD = experts.gate_up_proj.transpose(1, 2), experts.down_proj.transpose(1, 2)
        self.ups, self.downs = self.up_EDF.unbind(), self.down_EFD.unbind()
        self.numbers_E = torch.arange(experts.num_experts, device=self.up_EDF.device)

    def __call__(self, x_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
        if len(x_ND) <= ONE_BY_ONE_UP_TO_TOKENS and x_ND.device.type == "cpu":
            return self.one_by_one(x_ND, chosen_NK, weights_NK)
        return self.grouped(x_ND, chosen_NK, weights_NK.to(x_ND.dtype))

    def grouped(self, x_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Sorts the pairs by expert; what belongs to a token is found again by its place and summed in one go."""
        num_chosen = chosen_NK.shape[1]
        sorted_M, order_M = chosen_NK.flatten().sort(stable=True)
        ends_E = torch.searchsorted(sorted_M, self.numbers_E, right=True, out_int32=True)
        gathered_MD = x_ND.index_select(0, order_M // num_chosen)
        gate_MF, up_MF = F.grouped_mm(gathered_MD, self.up_EDF, offs=ends_E).chunk(2, dim=-1)
        out_MD = F.grouped_mm(F.silu(gate_MF).mul_(up_MF), self.down_EFD, offs=ends_E)
        place_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
        return F.embedding_bag(place_M.view_as(chosen_NK), out_MD, per_sample_weights=weights_NK, mode="sum")

    def one_by_one(self, x_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """Each pair by itself."""
        out_ND, chosen_M = torch.zeros_like(x_ND), chosen_NK.flatten().tolist()
        both_MX = x_ND.new_empty(len(chosen_M), self.up_EDF.shape[2])
        num_chosen, x_rows, out_rows = chosen_NK.shape[1], torch.split(x_ND, 1), torch.split(out_ND, 1)
        for pair, (number, both_1X) in enumerate(zip(chosen_M, torch.split(both_MX, 1), strict=True)):
            torch.mm(x_rows[pair // num_chosen], self.ups[number], out=both_1X)
        gate_MF, up_MF = both_MX.chunk(2, dim=-1)
        inner_MF = F.silu(gate_MF).mul_(up_MF).mul_(weights_NK.to(x_ND.dtype).view(-1, 1))
        for pair, (number, inner_1F) in enumerate(zip(chosen_M, torch.split(inner_MF, 1), strict=True)):
            out_rows[pair // num_chosen].addmm_(inner_1F, self.downs[number])
        return out_ND
