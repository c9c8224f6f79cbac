"""GRPO by numbers worked out by hand, and its invariances."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_core.grpo.advantages import EPSILON, group_advantages, is_flat
from model_core.grpo.loss import kl_estimate, policy_loss, token_values

REWARDS = st.lists(st.floats(-5, 5), min_size=2, max_size=16)


def test_advantages_by_hand() -> None:
    # mean 0.5, sum of squares 1.0, sample deviation sqrt(1 / 3)
    deviation = math.sqrt(1 / 3)
    expected = [0.5 / (deviation + EPSILON), -0.5 / (deviation + EPSILON)] * 2
    assert group_advantages([1.0, 0.0, 1.0, 0.0]) == pytest.approx(expected)


def test_equal_rewards_teach_nothing() -> None:
    assert group_advantages([0.3, 0.3, 0.3]) == [0.0, 0.0, 0.0]
    assert is_flat([0.3, 0.3, 0.3]) and is_flat([None, 0.5]) and not is_flat([0.0, 1.0, None])


def test_unscored_is_not_zero() -> None:
    known = group_advantages([1.0, 0.0])
    assert group_advantages([1.0, None, 0.0]) == [known[0], None, known[1]]
    assert group_advantages([None, None]) == [None, None]


@given(REWARDS)
def test_advantages_sum_to_nothing_and_keep_the_order(rewards: list[float]) -> None:
    advantages = [a for a in group_advantages(rewards) if a is not None]
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    ranked = [a for _r, a in sorted(zip(rewards, advantages, strict=True))]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(ranked))


def test_policy_loss_by_hand() -> None:
    # ratios 1, 1.5, 0.5, 1.5; clip 0.2: min(1·2, …)=2, min(3, 2.4)=2.4, then advantage −1: max form −0.8 and −1.5
    ratios_M = torch.tensor([1.0, 1.5, 0.5, 1.5])
    loss, sums = policy_loss(ratios_M.log(), torch.zeros(4), torch.tensor([2.0, 2.0, -1.0, -1.0]), clip_low=0.2, clip_high=0.2)
    assert float(loss) == pytest.approx(-(2 + 2.4) + (0.8 + 1.5))
    assert float(sums["clip/high"]) == 1 and float(sums["clip/low"]) == 1


def test_clipped_tokens_have_no_gradient() -> None:
    logprobs_M = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
    loss, _sums = policy_loss(logprobs_M, torch.zeros(2), torch.ones(2), clip_low=0.2, clip_high=0.2)
    loss.backward()
    assert logprobs_M.grad is not None
    assert logprobs_M.grad.tolist() == pytest.approx([0.0, -1.1])


def test_on_policy_gradient_is_reinforce() -> None:
    logits_MV = torch.randn(12, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets_M, advantages_M = torch.arange(12) % 7, torch.tensor([1.0, -2.0, 0.5]).repeat_interleave(4)
    logprobs_M = token_values(logits_MV, targets_M).logprobs_M
    loss, _sums = policy_loss(logprobs_M, logprobs_M.detach(), advantages_M, clip_low=0.2, clip_high=0.2)
    expected = torch.autograd.grad(-(logprobs_M * advantages_M).sum(), logits_MV, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad(loss, logits_MV)[0], expected, atol=1e-6)


def test_uniform_policy_has_full_entropy() -> None:
    values = token_values(torch.zeros(2, 8), torch.zeros(2, dtype=torch.long), temperature=0.7)
    assert values.entropy_M.tolist() == pytest.approx([math.log(8)] * 2)
    assert values.logprobs_M.tolist() == pytest.approx([-math.log(8)] * 2)


def test_kl_by_hand_and_never_negative() -> None:
    # reference / policy = 2: 2 − ln 2 − 1
    assert float(kl_estimate(torch.zeros(1), torch.full((1,), math.log(2)))) == pytest.approx(1 - math.log(2))
    random = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    assert (kl_estimate(random[0], random[1]) >= 0).all()
    assert torch.equal(kl_estimate(random[0], random[0]), torch.zeros(100))
