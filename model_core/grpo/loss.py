"""The loss of group-relative policy optimization and the numbers by which it is watched.

Letters: M sampled tokens, V vocabulary. Everything is a sum over the tokens; the caller divides by the number of tokens
in the whole batch (token mean), whatever the split into passes and ranks.
Source: DeepSeekMath (arXiv 2402.03300), equations 3 and 4; two clip ranges as in DAPO (arXiv 2503.14476).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenValues:
    """What the policy says about the tokens that were sampled. Shape M each; `logprobs_M` carries the gradient."""

    logprobs_M: Tensor
    entropy_M: Tensor


def token_values(logits_MV: Tensor, targets_M: Tensor, *, temperature: float = 1.0) -> TokenValues:
    """Log-probabilities of the targets and entropy of each distribution, at the temperature of the sampling."""
    logprobs_MV = torch.log_softmax(logits_MV.float() / temperature, dim=-1)
    with torch.no_grad():
        entropy_M = -(logprobs_MV.exp() * logprobs_MV).sum(dim=-1)
    return TokenValues(logprobs_MV.gather(-1, targets_M.unsqueeze(-1)).squeeze(-1), entropy_M)


def policy_loss(
    logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the clipped policy-gradient loss, and sums for `clip/low` and `clip/high`."""
    ratios_M = torch.exp(logprobs_M - old_logprobs_M)
    clipped_M = ratios_M.clamp(1 - clip_low, 1 + clip_high)
    loss_M = -torch.minimum(ratios_M * advantages_M, clipped_M * advantages_M)
    with torch.no_grad():
        low = ((ratios_M < 1 - clip_low) & (advantages_M < 0)).sum()
        high = ((ratios_M > 1 + clip_high) & (advantages_M > 0)).sum()
    return loss_M.sum(), {"clip/low": low, "clip/high": high}


def kl_estimate(logprobs_M: Tensor, reference_logprobs_M: Tensor) -> Tensor:
    """KL(policy ‖ reference) per token, without bias and never negative. Shape M.

    Source: DeepSeekMath, equation 4 (Schulman's k3).
    """
    difference_M = reference_logprobs_M - logprobs_M
    return torch.exp(difference_M) - difference_M - 1
