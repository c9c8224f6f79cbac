"""The loss of group-relative policy optimization and the numbers by which it is watched.

Letters: M sampled tokens, S sequences, V vocabulary. Everything is a sum over the tokens; the caller divides by the number
of tokens in the whole batch, whatever the split into passes and ranks. Other means than that over tokens are weights
of the tokens (`mean_weights`). Sources are with the names of the variants, in `model_core.config.variants`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model_core.config.variants import Mean


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
    logprobs_M: Tensor, old_logprobs_M: Tensor, advantages_M: Tensor, *, clip_low: float, clip_high: float,
    surrogate: Literal["clip", "cispo"] = "clip", lengths_S: Sequence[int] | None = None, weights_M: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the policy-gradient loss, and sums for `clip/low` and `clip/high`.

    With `lengths_S` the ratio is that of whole sequences, the geometric mean of their tokens' (GSPO, equation 7). "cispo"
    caps the ratio, takes it as a constant weight and lets every token teach (MiniMax-M1, equation 4, no lower bound).
    """
    log_ratios_M = logprobs_M - old_logprobs_M
    ratios_M = torch.exp(log_ratios_M if lengths_S is None else sequence_means(log_ratios_M, lengths_S))
    with torch.no_grad():
        is_low_M, is_high_M = ratios_M < 1 - clip_low, ratios_M > 1 + clip_high
    if surrogate == "cispo":
        loss_M, is_low_M = -ratios_M.clamp(max=1 + clip_high).detach() * advantages_M * logprobs_M, is_low_M & False
    else:
        clipped_M = ratios_M.clamp(1 - clip_low, 1 + clip_high)
        loss_M = -torch.minimum(ratios_M * advantages_M, clipped_M * advantages_M)
        is_low_M, is_high_M = is_low_M & (advantages_M < 0), is_high_M & (advantages_M > 0)
    loss_M = loss_M if weights_M is None else loss_M * weights_M
    return loss_M.sum(), {"clip/low": is_low_M.sum(), "clip/high": is_high_M.sum()}


def sequence_means(values_M: Tensor, lengths_S: Sequence[int]) -> Tensor:
    """Each token's value replaced by the mean of its sequence's. Shape M; `lengths_S` adds up to M."""
    lengths = torch.tensor(lengths_S, device=values_M.device)
    index_M = torch.repeat_interleave(torch.arange(len(lengths_S), device=values_M.device), lengths)
    sums_S = torch.zeros(len(lengths_S), device=values_M.device, dtype=values_M.dtype).index_add(0, index_M, values_M)
    return (sums_S / lengths)[index_M]


def mean_weights(lengths_S: Sequence[int], kind: Mean, *, num_tokens: int, num_sequences: int, longest: int) -> Tensor | None:
    """Weights of the tokens that make a sum over all, divided by `num_tokens`, another mean. Shape M; None is 1 everywhere.

    `num_tokens` and `num_sequences` are of the whole batch, of which `lengths_S` may be a part. "sequence": the mean over
    sequences of the means over their tokens; "constant": every sequence is divided by `longest` (Dr. GRPO).
    """
    if kind == "token":
        return None
    per_sequence = [num_tokens / num_sequences / (length if kind == "sequence" else longest) for length in lengths_S]
    return torch.repeat_interleave(torch.tensor(per_sequence), torch.tensor(lengths_S))


def kl_estimate(logprobs_M: Tensor, reference_logprobs_M: Tensor, kind: Literal["k1", "k2", "k3"] = "k3") -> Tensor:
    """KL(policy ‖ reference) per token. Shape M.

    k1 is the plain log-ratio and may be negative; k2 is half its square, biased but of the right gradient; k3 has no bias
    and is never negative. Source: Schulman, “Approximating KL divergence” (2020); k3 is DeepSeekMath's equation 4.
    """
    difference_M = reference_logprobs_M - logprobs_M
    if kind == "k1":
        return -difference_M
    if kind == "k2":
        return difference_M.square() / 2
    return torch.exp(difference_M) - difference_M - 1


@torch.no_grad()
def truncated_weights(trainer_logprobs_M: Tensor, rollout_logprobs_M: Tensor, *, cap: float) -> Tensor:
    """min(trainer's probability / sampler's, cap) of each token: corrects for what the two compute differently. Shape M.

    Source: Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025).
    """
    return torch.exp(trainer_logprobs_M - rollout_logprobs_M).clamp(max=cap)
