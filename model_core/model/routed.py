"""The routed experts as one differentiable step: sort by expert, multiply group by group, add the results back.

The backward pass is written out, so that rows are gathered and added by the two kernels that are fast for it
(`index_select`, `embedding_bag`) and the routing weights are applied where rows are narrowest.
Letters: T tokens, K chosen experts, M = T·K pairs of both, E experts, D hidden, F inner width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def routed(x_TD: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Sum over a token's experts of weight · down(silu(gate(x)) · up(x)), TD. `gate_up_EGD` has G = 2F rows an expert."""
    out: Tensor = _Routed.apply(x_TD, gate_up_EGD, down_EDF, chosen_TK, weights_TK)  # type: ignore[no-untyped-call]
    return out


class _Routed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, gate_up_EGD: Tensor, down_EDF: Tensor, chosen_TK: Tensor, weights_TK: Tensor
    ) -> Tensor:
        flat_M = chosen_TK.flatten()
        order_M = flat_M.argsort(stable=True)
        token_M = order_M.div(chosen_TK.shape[1], rounding_mode="floor")
        ends_E = torch.bincount(flat_M, minlength=len(gate_up_EGD)).cumsum(0).to(torch.int32)
        place_TK = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device)) \
            .view_as(chosen_TK)
        weights_M1 = weights_TK.flatten().index_select(0, order_M).unsqueeze(1).to(x_TD.dtype)
        both_MG = F.grouped_mm(x_TD.index_select(0, token_M), gate_up_EGD.transpose(1, 2), offs=ends_E)
        gate_MF, up_MF = both_MG.chunk(2, dim=-1)
        inner_MF = F.silu(gate_MF).mul_(up_MF).mul_(weights_M1)
        out_MD = F.grouped_mm(inner_MF, down_EDF.transpose(1, 2), offs=ends_E)
        ctx.save_for_backward(x_TD, gate_up_EGD, down_EDF, weights_M1, token_M, place_TK, ends_E, both_MG, weights_TK)
        return _added(out_MD, place_TK)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x_TD, gate_up_EGD, down_EDF, weights_M1, token_M, place_TK, ends_E, both_MG, weights_TK = ctx.saved_tensors
        gate_MF, up_MF = both_MG.chunk(2, dim=-1)
        active_MF = F.silu(gate_MF)
        inner_MF = active_MF * up_MF
        grad_MD = grads[0].index_select(0, token_M)
        grad_MF = F.grouped_mm(grad_MD, down_EDF, offs=ends_E)
        weights_grad_M = (grad_MF * inner_MF).sum(dim=-1)
        down_grad_EDF = F.grouped_mm(grad_MD.t(), inner_MF.mul_(weights_M1), offs=ends_E)
        grad_MF.mul_(weights_M1)
        both_grad_MG = torch.empty_like(both_MG)
        gate_grad_MF, up_grad_MF = both_grad_MG.chunk(2, dim=-1)
        torch.mul(grad_MF, active_MF, out=up_grad_MF)
        gate_grad_MF.copy_(torch.ops.aten.silu_backward(grad_MF.mul_(up_MF), gate_MF))
        gate_up_grad_EGD = F.grouped_mm(both_grad_MG.t(), x_TD.index_select(0, token_M), offs=ends_E)
        x_grad_TD = _added(F.grouped_mm(both_grad_MG, gate_up_EGD, offs=ends_E), place_TK)
        weights_grad_TK = weights_grad_M.take(place_TK).to(weights_TK.dtype)
        return x_grad_TD, gate_up_grad_EGD, down_grad_EDF, None, weights_grad_TK


def _added(rows_MD: Tensor, place_TK: Tensor) -> Tensor:
    """For each token the sum of its K rows."""
    return F.embedding_bag(place_TK, rows_MD, mode="sum")
