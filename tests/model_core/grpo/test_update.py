"""The gradient of a minibatch is that of the paper's formula on padded rows, however it is cut into passes and ranks."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_core.config import ModelConfig
from model_core.data.dataset import Row
from model_core.grpo.rollouts import Group, Rollout
from model_core.grpo.update import Lesson, MinibatchLosses, Objective, lessons, minibatches
from model_core.model import Transformer
from model_core.scoring import Scored
from model_core.training.world import World
from tests.model_core.reference.padded import make_batch
from tests.model_core.training.in_process import SHAPE

VOCABULARY = 19
OBJECTIVE = Objective(clip_low=0.2, clip_high=0.3, kl_coef=0.0, temperature=0.8)


@cache
def model(seed: int) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(ModelConfig.parse({**SHAPE, "vocab_size": VOCABULARY}))
    with torch.no_grad():
        made.lm_head.weight.normal_(0, 0.15)
    return made


def rollout(tokens: list[int], *, reward: float | None = 1.0, advantage: float | None = 1.0, logprobs: Any = ()) -> Rollout:
    return Rollout(tokens, list(logprobs), "stop", "", Scored(reward, {}, True, ""), advantage)


def drawn(num: int, seed: int) -> list[Lesson]:
    """Sequences of unequal length, whose old log-probabilities are off enough that some tokens are clipped."""
    generator = torch.Generator().manual_seed(seed)

    def integers(most: int, least: int = 1) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    made = []
    for _ in range(num):
        prompt = torch.randint(VOCABULARY, (integers(6),), generator=generator).tolist()
        tokens = torch.randint(VOCABULARY, (integers(9),), generator=generator).tolist()
        with torch.no_grad():
            own_V = (model(0)(torch.tensor([prompt + tokens]))[0] / OBJECTIVE.temperature).log_softmax(-1)
        own = own_V[len(prompt) - 1 : -1].gather(1, torch.tensor(tokens)[:, None])[:, 0]
        old = own + 0.4 * torch.randn(len(tokens), generator=generator)
        advantage = float(torch.randn((), generator=generator))
        made.append(Lesson(prompt, rollout(tokens, advantage=advantage, logprobs=old.tolist())))
    return made


def plain_loss(items: list[Lesson], objective: Objective) -> Tensor:
    """DeepSeekMath, equation 3, with a mean over tokens: one padded batch, token by token, by cases instead of a minimum."""
    batch = make_batch([(item.prompt, item.rollout.tokens) for item in items], pad=0)
    mine, theirs = ((model(seed)(batch.tokens_BT) / objective.temperature).log_softmax(-1) for seed in (0, 1))
    total, count = torch.zeros(()), 0
    for row, item in enumerate(items):
        assert item.rollout.advantage is not None
        for number, token in enumerate(item.rollout.tokens):
            place = len(item.prompt) + number - 1
            ratio = (mine[row, place, token] - item.rollout.logprobs[number]).exp()
            if item.rollout.advantage >= 0:
                gain = item.rollout.advantage * (ratio if ratio < 1 + objective.clip_high else torch.tensor(1 + objective.clip_high))
            else:
                gain = item.rollout.advantage * (ratio if ratio > 1 - objective.clip_low else torch.tensor(1 - objective.clip_low))
            difference = theirs[row, place, token].detach() - mine[row, place, token]
            total = total - gain + objective.kl_coef * (difference.exp() - difference - 1)
            count += 1
    return total / count


def gradient_of(loss: Tensor) -> Tensor:
    weights = [p for p in model(0).parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


def split(items: list[Lesson], objective: Objective, *, max_tokens: int, size: int) -> tuple[float, Tensor, Counter[str], float]:
    """Loss, gradient and sums over all ranks, and the largest difference."""
    value, gradient, sums, largest = 0.0, torch.zeros(()), Counter[str](), 0.0
    for rank in range(size):
        world = World(rank, size, torch.device("cpu"))
        losses = MinibatchLosses(items, objective, max_tokens=max_tokens, world=world, reference=model(1))
        for compute in losses.callables:
            loss = compute(model(0))
            value, gradient = value + float(loss.detach()), gradient + gradient_of(loss)
        sums.update(losses.sums)
        largest = max(largest, losses.max_difference)
    return value, gradient, sums, largest


@settings(max_examples=20, deadline=None, derandomize=True)
@given(num=st.integers(1, 9), seed=st.integers(0, 50), max_tokens=st.integers(1, 90), size=st.integers(1, 3),
       kl_coef=st.sampled_from([0.0, 0.3]))
def test_any_split_has_the_gradient_of_the_plain_formula(num: int, seed: int, max_tokens: int, size: int, kl_coef: float) -> None:
    items, objective = drawn(num, seed), Objective(0.2, 0.3, kl_coef, 0.8)
    expected = plain_loss(items, objective)
    value, gradient, sums, _largest = split(items, objective, max_tokens=max_tokens, size=size)
    assert value == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-5)
    plain = gradient_of(expected)
    assert float((gradient - plain).abs().max()) <= 1e-5 * (1 + float(plain.abs().max()))
    assert ("kl" in sums) == bool(kl_coef)


def test_what_is_watched_does_not_depend_on_the_split_either() -> None:
    items, objective = drawn(7, 3), Objective(0.2, 0.3, 0.1, 0.8)
    whole = split(items, objective, max_tokens=10_000, size=1)
    assert whole[2]["clip/low"] > 0 and whole[2]["clip/high"] > 0 and whole[2]["entropy"] > 0
    for max_tokens, size in ((1, 1), (30, 2), (1, 3)):
        other = split(items, objective, max_tokens=max_tokens, size=size)
        assert dict(other[2]) == pytest.approx(dict(whole[2]), rel=1e-4) and other[3] == pytest.approx(whole[3], rel=1e-4)


def test_on_the_sampling_policy_nothing_is_clipped_and_the_loss_is_minus_the_mean_advantage() -> None:
    items = drawn(6, 1)
    at_home = []
    for item in items:
        with torch.no_grad():
            full = (model(0)(torch.tensor([item.prompt + item.rollout.tokens]))[0] / 0.8).log_softmax(-1)
        own = full[len(item.prompt) - 1 : -1].gather(1, torch.tensor(item.rollout.tokens)[:, None])[:, 0]
        at_home.append(Lesson(item.prompt, rollout(item.rollout.tokens, advantage=item.rollout.advantage, logprobs=own.tolist())))
    value, _gradient, sums, largest = split(at_home, OBJECTIVE, max_tokens=40, size=2)
    lengths = [len(item.rollout.tokens) for item in items]
    mean = sum(n * (item.rollout.advantage or 0.0) for n, item in zip(lengths, items, strict=True)) / sum(lengths)
    assert value == pytest.approx(-mean, abs=1e-5) and largest < 1e-5
    assert sums["clip/low"] == sums["clip/high"] == 0


def test_every_rank_makes_as_many_passes_and_what_does_not_count_adds_nothing() -> None:
    items = drawn(4, 2)
    ranks = [MinibatchLosses(items, OBJECTIVE, max_tokens=1, world=World(rank, 3, torch.device("cpu"))) for rank in range(3)]
    assert len({len(one.callables) for one in ranks}) == 1
    idle = [one for one in ranks if float(sum(abs(float(f(model(0)).detach())) for f in one.callables)) == 0.0]
    assert all(one.num_tokens == sum(len(item.rollout.tokens) for item in items) for one in ranks), "all divide alike"
    assert len(idle) <= 2 and all(not any(one.sums.values()) for one in idle)


def test_the_reference_gets_no_gradient() -> None:
    reference = copy.deepcopy(model(1))
    losses = MinibatchLosses(drawn(2, 4), Objective(0.2, 0.2, 1.0, 1.0), max_tokens=99,
                             world=World(0, 1, torch.device("cpu")), reference=reference)
    losses.callables[0](model(0)).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in reference.parameters())
    model(0).zero_grad()


def test_lessons_are_of_groups_that_differ_and_of_rollouts_that_were_judged() -> None:
    def group(*rewards: float | None) -> Group:
        return Group(Row("p"), [1, 2], [rollout([7], reward=r, advantage=None if r is None else 0.5) for r in rewards])

    empty = Group(Row("p"), [3], [rollout([]), rollout([5], reward=0.0)])
    found = lessons([group(1.0, 1.0), group(1.0, None, 0.0), group(None, None), group(None, 1.0), empty])
    assert [(item.prompt, item.rollout.scored.total) for item in found] == [([1, 2], 1.0), ([1, 2], 0.0), ([3], 0.0)]
    assert [item.length for item in found] == [3, 3, 2]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 5))
def test_minibatches_hold_each_lesson_once_in_parts_of_like_size(num: int, parts: int, seed: int) -> None:
    items = [Lesson([number], rollout([1])) for number in range(num)]
    cut = minibatches(items, num=parts, seed=seed)
    assert sorted(item.prompt[0] for part in cut for item in part) == list(range(num))
    sizes = [len(part) for part in cut]
    assert len(cut) == min(parts, num) and (not sizes or max(sizes) - min(sizes) <= 1)
    assert cut == minibatches(items, num=parts, seed=seed)
