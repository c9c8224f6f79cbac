"""The loss of group-relative policy optimization and the numbers by which it is watched.

Letters: B sequences, T positions, V vocabulary. Everything is a sum over the tokens that `mask_BT` counts; the caller
divides by the number of such tokens in the whole batch (token mean), whatever the split into passes and ranks.
Source: DeepSeekMath (arXiv 2402.03300), equations 3 and 4; two clip ranges as in DAPO (arXiv 2503.14476).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenValues:
    """What the policy says about the tokens that were sampled. Shape BT each; `logprobs_BT` carries the gradient."""

    logprobs_BT: Tensor
    entropy_BT: Tensor


def token_values(logits_BTV: Tensor, targets_BT: Tensor, *, temperature: float = 1.0) -> TokenValues:
    """Log-probabilities of the targets and entropy of each distribution, at the temperature of the sampling."""
    logits_BTV = logits_BTV.float() / temperature
    logprobs_BTV = torch.log_softmax(logits_BTV, dim=-1)
    with torch.no_grad():
        entropy_BT = -(logprobs_BTV.exp() * logprobs_BTV).sum(dim=-1)
    return TokenValues(logprobs_BTV.gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1), entropy_BT)


def policy_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, *,
    clip_low: float, clip_high: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the clipped policy-gradient loss, and sums for `clip/low` and `clip/high`."""
    advantages_BT = advantages_B.unsqueeze(1).expand_as(logprobs_BT)
    ratios_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    clipped_BT = ratios_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratios_BT * advantages_BT, clipped_BT * advantages_BT)
    with torch.no_grad():
        low = (((ratios_BT < 1 - clip_low) & (advantages_BT < 0)) * mask_BT).sum()
        high = (((ratios_BT > 1 + clip_high) & (advantages_BT > 0)) * mask_BT).sum()
    return (loss_BT * mask_BT).sum(), {"clip/low": low, "clip/high": high}


def kl_estimate(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """KL(policy ‖ reference) per token, without bias and never negative. Shape BT.

    Source: DeepSeekMath, equation 4 (Schulman's k3).
    """
    difference_BT = reference_logprobs_BT - logprobs_BT
    return torch.exp(difference_BT) - difference_BT - 1
