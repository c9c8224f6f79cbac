"""DeepSeekMoE: shared experts for every token, and routed experts that a gate chooses among.

1 the gate scores each expert; 2 the best groups, then the top-k of them, are chosen, in V3 with a bias added that only
steers the choice; 3 the chosen experts run; 4 their outputs are summed with the unbiased scores as weights.
Letters: T tokens, D hidden, E experts, K chosen experts, G groups, F inner width.
Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2, equations 12 to 16; DeepSeek-V2 (arXiv 2405.04434), section 2.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import ModelConfig
from model_core.model.routed import routed

DENSE_UP_TO_TOKENS = 128
"""Below this, running every expert on every token costs less than sorting; measured, see docs/experiments.md."""


class MLP(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Gate(nn.Module):
    """Chooses K experts a token; scores in float32 whatever the model's precision. Only V3's has a balancing bias."""

    e_score_correction_bias: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        bias = torch.zeros(config.n_routed_experts) if config.topk_method == "noaux_tc" else None
        self.register_buffer("e_score_correction_bias", bias)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Weights TK and expert numbers TK."""
        c = self.config
        scores_TE = self.scores(x_TD)
        choice_TE = scores_TE if self.e_score_correction_bias is None else scores_TE + self.e_score_correction_bias
        if c.n_group > 1:
            choice_TE = choice_TE.masked_fill(~self._in_best_groups(choice_TE), float("-inf"))
        chosen_TK = choice_TE.topk(c.num_experts_per_tok, dim=-1, sorted=False).indices
        weights_TK = scores_TE.gather(1, chosen_TK)
        if c.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return weights_TK * c.routed_scaling_factor, chosen_TK

    def scores(self, x_TD: Tensor) -> Tensor:
        """Every expert's score for every token, TE, without the bias."""
        logits_TE = F.linear(x_TD.float(), self.weight.float())
        return logits_TE.sigmoid() if self.config.scoring_func == "sigmoid" else logits_TE.softmax(dim=-1)

    def _in_best_groups(self, choice_TE: Tensor) -> Tensor:
        """Whether an expert is in a group that may be chosen from. V3 ranks groups by their two best, V2 by the best."""
        c = self.config
        per_group = c.n_routed_experts // c.n_group
        num_best = min(2, per_group) if c.topk_method == "noaux_tc" else 1
        group_TG = choice_TE.unflatten(1, (c.n_group, per_group)).topk(num_best, dim=-1).values.sum(dim=-1)  # type: ignore[no-untyped-call]
        best = group_TG.topk(c.topk_group, dim=-1, sorted=False).indices
        return torch.zeros_like(group_TG, dtype=torch.bool).scatter_(1, best, True).repeat_interleave(per_group, dim=1)


class Experts(nn.Module):
    """The routed experts as two stacks of matrices: gate and up together (E, 2F, D), down (E, D, F)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        num, inner, hidden = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.num_experts = num
        self.gate_up_proj = nn.Parameter(torch.empty(num, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(num, hidden, inner))

    def forward(self, x_TD: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """Weighted sum of the chosen experts' outputs, TD."""
        if len(x_TD) <= DENSE_UP_TO_TOKENS:
            return self._dense(x_TD, chosen_TK, weights_TK)
        return routed(x_TD, self.gate_up_proj, self.down_proj, chosen_TK, weights_TK)

    def _dense(self, x_TD: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """Every expert on every token, and a weight of zero for those not chosen."""
        weights_TE = x_TD.new_zeros(len(x_TD), self.num_experts).scatter_(1, chosen_TK, weights_TK.to(x_TD.dtype))
        gate, up = torch.matmul(x_TD, self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
        inner_ETF = F.silu(gate) * up * weights_TE.t()[:, :, None]
        return torch.matmul(inner_ETF, self.down_proj.transpose(1, 2)).sum(dim=0)


class MoE(nn.Module):
    """Routed and shared experts; how many tokens each got is counted by `model_core.training.balance`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Gate(config)
        self.experts = Experts(config)
        self.shared_experts = (
            MLP(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts) if config.n_shared_experts else None
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_TD = x_BTD.flatten(0, 1)
        weights_TK, chosen_TK = self.gate(x_TD)
        out_BTD: Tensor = self.experts(x_TD, chosen_TK, weights_TK).view_as(x_BTD)
        return out_BTD if self.shared_experts is None else out_BTD + self.shared_experts(x_BTD)
