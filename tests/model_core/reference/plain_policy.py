"""GRPO and its relatives written from the papers' equations: one number at a time, no tensors but for the gradient.

A sequence is a list of tokens, each with its log-probability under the policy (which may carry a gradient), the policy that
sampled it, and the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequence_:
    """One completion with its advantage."""

    new: list[Tensor]
    old: list[float]
    reference: list[float]
    advantage: float


def loss(algorithm: str, batch: Sequence[Sequence_], *, low: float, high: float, longest: int, beta: float = 0.0) -> Tensor:
    """The loss that the paper of `algorithm` minimises, over one batch of completions."""
    if algorithm in {"grpo", "rloo"}:  # DeepSeekMath, equation 3
        return -_mean([_mean([_clipped(r, one.advantage, low, high) - beta * _k3(new, ref) for r, new, ref in _tokens(one)]) for one in batch])
    if algorithm == "dr_grpo":  # Dr. GRPO, section 3.2, its code: divided by a constant
        return -_mean([torch.stack([_clipped(r, one.advantage, low, high) for r, _new, _ref in _tokens(one)]).sum() / longest for one in batch])
    if algorithm in {"grpo_token", "dapo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"}:  # DAPO, equation 8
        return -_mean([_clipped(r, one.advantage, low, high) - beta * _k3(new, ref) for one in batch for r, new, ref in _tokens(one)])
    if algorithm == "gspo":  # GSPO, equations 5 and 7
        gains = []
        for one in batch:
            log_ratio = torch.stack([new - old for new, old in zip(one.new, one.old, strict=True)]).sum() / len(one.new)
            gains.append(_clipped(log_ratio.exp(), one.advantage, low, high))
        return -_mean(gains)
    assert algorithm == "cispo"  # MiniMax-M1, equation 4; no lower bound
    return -_mean([min(float(r.detach()), 1 + high) * one.advantage * new for one in batch for r, new, _ref in _tokens(one)])


def advantages(kind: str, rewards: Sequence[Sequence[float]], epsilon: float) -> list[list[float]]:
    """Each kind by its own formula; groups of equal rewards are worth nothing where a group's deviation divides."""
    if kind == "group_std":
        return [[(r - fmean(g)) / (stdev(g) + epsilon) if max(g) > min(g) else 0.0 for r in g] for g in rewards]
    if kind == "group_mean":
        return [[r - fmean(g) for r in g] for g in rewards]
    if kind == "leave_one_out":
        return [[r - fmean([*g[:place], *g[place + 1 :]]) for place, r in enumerate(g)] for g in rewards]
    everything = [r for g in rewards for r in g]
    if kind == "batch":
        return [[(r - fmean(everything)) / (stdev(everything) + epsilon) for r in g] for g in rewards]
    assert kind == "group_mean_batch_std"
    left = [[r - fmean(g) for r in g] for g in rewards]
    deviation = stdev([value for g in left for value in g])
    return [[value / (deviation + epsilon) for value in g] for g in left]


def _tokens(one: Sequence_) -> list[tuple[Tensor, Tensor, float]]:
    return [((new - old).exp(), new, ref) for new, old, ref in zip(one.new, one.old, one.reference, strict=True)]


def _clipped(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    if advantage >= 0:
        return advantage * (ratio if float(ratio.detach()) <= 1 + high else torch.tensor(1 + high, dtype=ratio.dtype))
    return advantage * (ratio if float(ratio.detach()) >= 1 - low else torch.tensor(1 - low, dtype=ratio.dtype))


def _k3(new: Tensor, reference: float) -> Tensor:
    return (reference - new).exp() - (reference - new) - 1


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum() / len(values)
