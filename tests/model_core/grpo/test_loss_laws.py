"""Laws of the loss: cases instead of a minimum, gradients by hand, and expectations that can be summed exactly."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.grpo.loss import kl_estimate, policy_loss, token_values

TOKENS = st.lists(st.tuples(st.floats(-2, 2), st.floats(-3, 3)), min_size=1, max_size=8)


@given(TOKENS, st.floats(0.05, 0.9), st.floats(0.05, 9))
@settings(deadline=None, max_examples=60)
def test_value_gradient_and_clipping_of_each_token(tokens: list[tuple[float, float]], low: float, high: float) -> None:
    """A token teaches until its ratio has gone beyond the range in the direction that its advantage asks for."""
    logratio_M, advantages_M = (torch.tensor(values, dtype=torch.float64) for values in zip(*tokens, strict=True))
    logprobs_M = logratio_M.clone().requires_grad_()
    loss, sums = policy_loss(logprobs_M, torch.zeros_like(logprobs_M), advantages_M, clip_low=low, clip_high=high)
    loss.backward()  # type: ignore[no-untyped-call]
    expected, slopes, clipped = 0.0, [], {"clip/low": 0, "clip/high": 0}
    for logratio, advantage in tokens:
        ratio = math.exp(logratio)
        too_high, too_low = advantage > 0 and ratio > 1 + high, advantage < 0 and ratio < 1 - low
        clipped["clip/high"] += too_high
        clipped["clip/low"] += too_low
        expected -= advantage * ((1 + high) if too_high else (1 - low) if too_low else ratio)
        slopes.append(0.0 if too_high or too_low else -advantage * ratio)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-9)
    assert logprobs_M.grad is not None and logprobs_M.grad.tolist() == pytest.approx(slopes, abs=1e-9)
    assert {name: int(value) for name, value in sums.items()} == clipped


def distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(9, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_has_the_divergence_as_its_mean_over_the_policy(seed: int) -> None:
    policy_V, reference_V = distributions(seed)
    mean = (policy_V.exp() * kl_estimate(policy_V, reference_V)).sum()
    assert float(mean) == pytest.approx(float((policy_V.exp() * (policy_V - reference_V)).sum()), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_estimates_slope_pulls_the_policy_towards_the_reference(seed: int) -> None:
    policy_V, reference_V = distributions(seed)
    policy_V = policy_V.requires_grad_()
    (slope_V,) = torch.autograd.grad(kl_estimate(policy_V, reference_V).sum(), policy_V)
    assert torch.allclose(slope_V, 1 - (reference_V - policy_V.detach()).exp())
    assert torch.equal(slope_V > 0, policy_V > reference_V)


@given(st.integers(0, 99), st.floats(0.2, 3))
@settings(deadline=None, max_examples=30)
def test_values_are_those_of_the_tempered_distribution(seed: int, temperature: float) -> None:
    logits_MV = torch.randn(6, 11, generator=torch.Generator().manual_seed(seed))
    probs_MV = torch.softmax(logits_MV / temperature, dim=-1)
    every = torch.stack([token_values(logits_MV, torch.full((6,), v), temperature=temperature).logprobs_M for v in range(11)], dim=1)
    assert torch.allclose(every.exp(), probs_MV, atol=1e-6)
    entropy_M = token_values(logits_MV, torch.zeros(6, dtype=torch.long), temperature=temperature).entropy_M
    assert torch.allclose(entropy_M, -(probs_MV * probs_MV.log()).sum(-1), atol=1e-5)
    shifted = token_values(logits_MV + 7.0, torch.arange(6), temperature=temperature)
    assert torch.allclose(shifted.logprobs_M, token_values(logits_MV, torch.arange(6), temperature=temperature).logprobs_M, atol=1e-5)


def test_sixteen_bit_logits_are_judged_in_float32() -> None:
    logits_MV = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    values = token_values(logits_MV, torch.arange(4))
    assert values.logprobs_M.dtype == values.entropy_M.dtype == torch.float32
    assert torch.equal(values.logprobs_M, token_values(logits_MV.float(), torch.arange(4)).logprobs_M)
