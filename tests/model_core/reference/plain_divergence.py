"""The divergences of on-policy distillation written from the paper's equations: one token, one probability at a time.

Source: GKD (arXiv 2306.13649), equation 1 and what section 2 says of its ends.
"""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(logits_V: Tensor) -> list[Tensor]:
    weights = [logit.exp() for logit in logits_V]
    total = torch.stack(weights).sum()
    return [weight / total for weight in weights]


def kl(p: list[Tensor], q: list[Tensor]) -> Tensor:
    """KL(p ‖ q) = Σ p log(p / q)."""
    return torch.stack([a * (a / b).log() for a, b in zip(p, q, strict=True)]).sum()


def divergence(teacher: list[Tensor], student: list[Tensor], beta: float) -> Tensor:
    """D_β(P ‖ Q) = β KL(P ‖ βP + (1−β)Q) + (1−β) KL(Q ‖ βP + (1−β)Q); its ends are the forward and the reverse KL."""
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixture = [beta * p + (1 - beta) * q for p, q in zip(teacher, student, strict=True)]
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def loss(teacher_MV: Tensor, student_MV: Tensor, beta: float) -> Tensor:
    """The mean over all places."""
    return torch.stack([
        divergence(probabilities(teacher_V), probabilities(student_V), beta)
        for teacher_V, student_V in zip(teacher_MV, student_MV, strict=True)
    ]).mean()  # fmt: skip
