"""How far a student's distributions are from a teacher's, over the whole vocabulary. Letters: M places, V vocabulary."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Compared(NamedTuple):
    """Of each place, M: the divergence to learn from, and without a gradient what is told."""

    divergence_M: Tensor
    reverse_kl_M: Tensor
    """KL(student ‖ teacher)."""
    forward_kl_M: Tensor
    """KL(teacher ‖ student)."""
    entropy_M: Tensor
    """Of the student."""
    agrees_M: Tensor
    """Whether both find the same token likeliest."""


def compare(student_MV: Tensor, teacher_MV: Tensor, *, beta: float) -> Compared:
    """Compares logits, in float32 at least.

    Source: GKD (arXiv 2306.13649), equation 1, with teacher P and student Q: β KL(P ‖ M) + (1 − β) KL(Q ‖ M), M = β P + (1 − β) Q.
    That vanishes at both ends; there stand what it goes to when divided by its factor: KL(P ‖ Q) at 0, KL(Q ‖ P) at 1.
    """
    student_MV, teacher_MV = (_logprobs(logits_MV) for logits_MV in (student_MV, teacher_MV))
    with torch.no_grad():
        told = (
            _kl(student_MV, teacher_MV), _kl(teacher_MV, student_MV), -(student_MV.exp() * student_MV).sum(dim=-1),
            student_MV.argmax(dim=-1) == teacher_MV.argmax(dim=-1),
        )  # fmt: skip
    if beta in (0, 1):
        divergence_M = _kl(student_MV, teacher_MV) if beta else _kl(teacher_MV, student_MV)
    else:
        mixture_MV = torch.logaddexp(teacher_MV + math.log(beta), student_MV + math.log1p(-beta))
        divergence_M = beta * _kl(teacher_MV, mixture_MV) + (1 - beta) * _kl(student_MV, mixture_MV)
    return Compared(divergence_M, *told)


def _logprobs(logits_MV: Tensor) -> Tensor:
    return logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32)).log_softmax(dim=-1)


def _kl(p_MV: Tensor, q_MV: Tensor) -> Tensor:
    """KL(p ‖ q) of log-probabilities."""
    return (p_MV.exp() * (p_MV - q_MV)).sum(dim=-1)
