"""Rollouts: whoever samples them, the groups are in the order of the prompts; what is told of them; what is kept of them."""

from __future__ import annotations

import copy
import gzip
import json
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import RewardConfig
from model_core.data.dataset import Row
from model_core.data.tokenizer import encode_rows
from model_core.events import METRICS
from model_core.grpo.advantages import EPSILON, group_advantages, is_flat
from model_core.grpo.rollouts import Collected, Group, Rollout, Sampling, collect, metrics, with_advantages
from model_core.grpo.storing import store
from model_core.rollout import Sampler
from model_core.scoring import Rubric, Scored
from model_core.training.start import Start
from model_core.training.world import World
from tests.model_core.training.in_process import ROWS, model_start
from tests.model_core.training.ranks import ALONE, each_rank

REWARDS = st.lists(st.floats(-5, 5) | st.none(), min_size=1, max_size=12)


@cache
def sampling() -> Start:
    """A model that says different things."""
    start = model_start()
    with torch.no_grad():
        start.model.lm_head.weight.mul_(10)
    return start


def collected(world: World, *, seed: int = 3, num: int = 7, temperature: float = 1.0) -> Collected:
    start = copy.deepcopy(sampling())
    sampler = Sampler(start.model.eval(), eos_token_id=int(start.tokenizer.eos_token_id), pad_token_id=0)
    problems = [(row, prompt) for row, (prompt, _completion) in zip(ROWS, encode_rows(start.tokenizer, ROWS), strict=True)][:num]
    return collect(sampler, start.tokenizer, problems, sampling=Sampling(3, 6, temperature), rubric=Rubric(RewardConfig()),
                   world=world, seed=seed)


def test_groups_are_in_the_order_of_the_prompts_and_know_their_advantages() -> None:
    found = collected(ALONE)
    assert [group.row for group in found.groups] == ROWS[:7]
    for group in with_advantages(found.groups, "group_std"):
        assert [rollout.advantage for rollout in group.rollouts] == group_advantages(group.rewards)
        assert all(len(r.tokens) == len(r.logprobs) and r.finish_reason in {"stop", "length"} for r in group.rollouts)
    assert set(found.seconds) == {"perf/rollout_s", "perf/reward_s"}
    assert collected(ALONE).groups == found.groups != collected(ALONE, seed=4).groups


@pytest.mark.parametrize("size", [2, 3, 9])
def test_ranks_share_the_prompts_and_all_get_all_groups(size: int) -> None:
    """With 9 ranks two have nothing to sample. Greedy tokens do not depend on who samples."""
    ranks = each_rank(size, lambda world: collected(world, temperature=0.0))
    assert all(found.groups == ranks[0].groups for found in ranks)
    assert all(found.seconds == ranks[0].seconds for found in ranks)
    expected = [[r.tokens for r in group.rollouts] for group in collected(ALONE, temperature=0.0).groups]
    assert [[r.tokens for r in group.rollouts] for group in ranks[0].groups] == expected


def test_ranks_draw_with_seeds_of_their_own() -> None:
    """The same prompt on two ranks is not answered alike, but in another attempt just so."""
    def program(world: World) -> Collected:
        return collected(world, num=2, seed=5)

    (first, _same), (again, _other) = each_rank(2, program), each_rank(2, program)
    assert first.groups == again.groups
    alone = collected(ALONE, num=2, seed=10).groups  # seed · ranks + rank of the first of two
    assert [r.tokens for r in first.groups[0].rollouts] == [r.tokens for r in alone[0].rollouts]
    assert [r.tokens for r in first.groups[1].rollouts] != [r.tokens for r in collected(ALONE, num=2, seed=5).groups[1].rollouts]


def group(rewards: list[float | None], *, lengths: list[int] | None = None, **scored: Any) -> Group:
    lengths = lengths or [2] * len(rewards)
    advantages = group_advantages(rewards)
    return Group(Row("p", answer="1"), [1, 2], [
        Rollout(list(range(n)), [0.0] * n, "length" if n > 4 else "stop", "t" * n,
                Scored(reward, {"format": reward, "efficiency": None}, scored.get("correct"), ""), advantage)
        for reward, n, advantage in zip(rewards, lengths, advantages, strict=True)
    ])


@settings(deadline=None)
@given(st.lists(REWARDS, min_size=1, max_size=5))
def test_what_is_told_is_plain_statistics_of_what_is_known(rewards: list[list[float | None]]) -> None:
    groups = [group(of_one) for of_one in rewards]
    values, known = metrics(groups), [reward for of_one in rewards for reward in of_one if reward is not None]
    assert values["reward/total"] == (pytest.approx(statistics.fmean(known), abs=1e-9) if known else None)
    assert values["reward/std"] == (pytest.approx(statistics.pstdev(known), abs=1e-9) if known else None)
    assert values["reward/frac_zero_std_groups"] == pytest.approx(sum(map(is_flat, rewards)) / len(rewards))
    num = sum(map(len, rewards))
    assert values["reward/format/unscored"] == num - len(known) and values["reward/efficiency/unscored"] == num
    assert values["reward/efficiency/mean"] is None and values["accuracy/rollouts"] is None
    advantages = [a for of_one in rewards for a in group_advantages(of_one) if a is not None]
    assert values["adv/mean"] == (pytest.approx(0, abs=1e-6) if advantages else None)
    assert {name for name in values if name.count("/") < 2} <= set(METRICS)


def test_lengths_and_ends_are_told() -> None:
    values = metrics([group([1.0, 0.0], lengths=[3, 9], correct=True), group([0.5], lengths=[6], correct=False)])
    assert values["len/mean"] == 6.0 and values["len/max"] == 9.0 and values["truncated_ratio"] == pytest.approx(2 / 3)
    assert values["accuracy/rollouts"] == pytest.approx(2 / 3)
    assert metrics([])["len/max"] == 0.0 and metrics([])["reward/total"] is None


def test_what_is_kept_can_be_read_and_is_the_same_bytes_for_the_same_groups(tmp_path: Path) -> None:
    groups = [group([1.0, None], lengths=[3, 9]), group([0.0, 0.25])]
    for name in ("a", "b"):
        assert store(tmp_path / "samples" / name, groups, seed=1) == 2
    assert (tmp_path / "samples" / "a").read_bytes() == (tmp_path / "samples" / "b").read_bytes()
    lines = [json.loads(line) for line in gzip.decompress((tmp_path / "samples" / "a").read_bytes()).decode().splitlines()]
    assert [line["prompt"] for line in lines] == ["p", "p"] and lines[0]["answer"] == "1"
    first, unscored = lines[0]["completions"]
    assert first["reward"] == 1.0 and first["num_tokens"] == 3 and first["finish_reason"] == "stop"
    assert unscored["reward"] is None and unscored["advantage"] is None and unscored["finish_reason"] == "length"
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["a", "b"], "nothing half written is left"


KNOWN = st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=16)


@settings(deadline=None)
@given(KNOWN, st.floats(0.5, 50), st.floats(-9, 9))
def test_advantages_do_not_depend_on_the_rewards_scale_and_origin(rewards: list[float], factor: float, shift: float) -> None:
    """Up to the ε of the denominator, which matters less the more the rewards spread."""
    one, other = group_advantages(rewards), group_advantages([factor * reward + shift for reward in rewards])
    assert other == pytest.approx(one, rel=1e-3, abs=1e-6)


@settings(deadline=None)
@given(KNOWN, st.randoms(use_true_random=False))
def test_an_advantage_is_bounded_and_goes_with_its_reward_wherever_it_stands(rewards: list[float], random: Any) -> None:
    places = list(range(len(rewards)))
    random.shuffle(places)
    one, other = group_advantages(rewards), group_advantages([rewards[place] for place in places])
    assert other == pytest.approx([one[place] for place in places])
    num = len(rewards)
    assert all(abs(value) <= (num - 1) / num**0.5 for value in one if value is not None)
    if not is_flat(rewards):
        deviation = statistics.stdev(rewards)
        assert statistics.stdev(value or 0.0 for value in one) == pytest.approx(deviation / (deviation + EPSILON))


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.5, 0.5 + 5e-10, None]), max_size=9))
def test_a_flat_group_has_no_advantage_but_zero(rewards: list[float | None]) -> None:
    assert is_flat(rewards)
    assert [value for value in group_advantages(rewards) if value is not None] == [0.0] * sum(r is not None for r in rewards)
