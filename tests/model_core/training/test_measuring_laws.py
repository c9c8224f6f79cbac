"""Measuring: the same means however many ranks answer, intervals around the means, and what could not be judged is said."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import HeldOutConfig, RewardConfig
from model_core.data.tokenizer import decode, prompt_ids
from model_core.events import KINDS
from model_core.rewards._types import Sample
from model_core.rollout import Sampler
from model_core.scoring import Rubric, Scored
from model_core.training.balance import ExpertBalance, load_event, load_metrics
from model_core.training.measuring import answer, measure, summary
from model_core.training.start import Start
from model_core.training.world import World
from tests.model_core.reference.plain_decoding import greedy
from tests.model_core.training.in_process import ROWS, model_start
from tests.model_core.training.ranks import ALONE, each_rank

HELD_OUT = HeldOutConfig(num_problems=12, max_new_tokens=5)


@cache
def start() -> Start:
    made = model_start()
    with torch.no_grad():
        made.model.lm_head.weight.mul_(10)
    return made


def measured(world: World, **changes: Any) -> dict[str, Any]:
    here = copy.deepcopy(start())
    sampler = Sampler(here.model.eval(), eos_token_id=int(here.tokenizer.eos_token_id), pad_token_id=0)
    return measure(sampler, here.tokenizer, ROWS, config=HELD_OUT.model_copy(update=changes), rubric=Rubric(RewardConfig()),
                   world=world, seed=3)


@pytest.mark.parametrize("size", [2, 5, 13])
def test_ranks_share_the_problems_and_all_know_what_one_would_have_measured(size: int) -> None:
    alone, ranks = measured(ALONE), each_rank(size, measured)
    assert all(result == ranks[0] for result in ranks) and len(ranks[0]["examples"]) == 8
    for name in ("accuracy", "accuracy_low", "accuracy_high", "quality", "num_problems", "unscored", "components"):
        assert ranks[0][name] == pytest.approx(alone[name], abs=1e-12)


def test_answers_are_the_models_greedy_ones() -> None:
    here = start()
    sampler = Sampler(here.model.eval(), eos_token_id=int(here.tokenizer.eos_token_id), pad_token_id=0)
    answered = answer(sampler, here.tokenizer, ROWS[:5], config=HELD_OUT, rubric=Rubric(RewardConfig()), seed=0)
    for row, (sample, scored) in zip(ROWS, answered, strict=False):
        expected = greedy(here.model, prompt_ids(here.tokenizer, row.prompt), 5, eos=int(here.tokenizer.eos_token_id))
        assert sample.completion == decode(here.tokenizer, expected) and sample.num_tokens == len(expected)
        assert (sample.prompt, sample.expected, sample.task) == (row.prompt, row.answer, row.task) and scored.correct is not None


def test_nothing_asked_is_nothing_known() -> None:
    empty = summary([], seed=0)
    assert [empty[name] for name in ("accuracy", "accuracy_low", "quality", "quality_high")] == [None] * 4
    assert empty["num_problems"] == empty["unscored"] == 0 and empty["components"] == {} == dict.fromkeys(empty["examples"])
    assert {*empty, "step", "when"} == {name.split(" {")[0].split(" (")[0] for name in _names(KINDS["evaluation"])}


def _names(text: str) -> list[str]:
    """The keys that the description of an event names."""
    return [part.strip() for part in text.replace("(before | during | after)", "").replace("{reward component: mean}", "").split(",")]


PARTS = st.floats(0, 1) | st.none()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(PARTS, PARTS, st.booleans() | st.none()), min_size=1, max_size=12))
def test_means_are_of_what_was_judged_and_lie_in_their_intervals(judged: list[tuple[float | None, float | None, bool | None]]) -> None:
    answered = [
        (Sample("p", "c", None, "", 1, "stop"), Scored(None if a is None or b is None else a + b, {"x": a, "y": b}, correct, ""))
        for a, b, correct in judged
    ]
    told = summary(answered, seed=1)
    totals = [scored.total for _sample, scored in answered if scored.total is not None]
    decided = [correct for _a, _b, correct in judged if correct is not None]
    assert told["unscored"] == len(judged) - len(totals) and told["num_problems"] == len(judged)
    assert told["quality"] == (pytest.approx(sum(totals) / len(totals)) if totals else None)
    assert told["accuracy"] == (pytest.approx(sum(decided) / len(decided)) if decided else None)
    for name, known in (("quality", totals), ("accuracy", decided)):
        if known:
            assert told[f"{name}_low"] - 1e-9 <= told[name] <= told[f"{name}_high"] + 1e-9
    for place, name in enumerate(("x", "y")):
        known = [value for pair in judged if (value := pair[place]) is not None]
        assert told["components"][name] == (pytest.approx(sum(known) / len(known)) if known else None)


LOADS = st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=1, max_size=3)


@settings(deadline=None)
@given(LOADS)
def test_what_is_told_of_loads_is_their_imbalance(loads: list[list[int]]) -> None:
    """A layer that got nothing while another did has no imbalance to tell."""
    loads = [[load + 1 for load in layer] for layer in loads]
    loads_LE, biases = torch.tensor(loads, dtype=torch.float32), [[0.3, -0.4, 0.0, 0.0]] * len(loads)
    metrics, event = load_metrics(loads_LE, biases), load_event(loads_LE, biases)
    worst = [max(layer) * 4 / sum(layer) - 1 for layer in loads]
    assert metrics["moe/max_vio"] == pytest.approx(max(worst), abs=1e-5) and metrics["moe/bias_norm"] == pytest.approx(0.5)
    assert event["max_violation"] == pytest.approx(worst, abs=1e-4) and event["bias"] == biases
    for layer, told in zip(loads, event["layers"], strict=True):
        assert told == pytest.approx([load / sum(layer) for load in layer], abs=1e-5)
    assert (metrics["moe/load_cv"] < 1e-6) == all(len(set(layer)) == 1 for layer in loads)


def test_no_load_is_no_number() -> None:
    assert load_metrics(torch.zeros(2, 4), [[0.0] * 4] * 2) == load_metrics(torch.zeros(0, 0), []) == {}
    assert load_event(torch.zeros(1, 4), [[0.0] * 4])["layers"] == [[0.0] * 4]


@pytest.mark.parametrize("num_alike", [1, 2])
def test_loads_are_summed_over_ranks_and_counted_once_where_ranks_see_the_same(num_alike: int) -> None:
    tokens_BT = torch.randint(start().model_config.vocab_size, (3, 6), generator=torch.Generator().manual_seed(0))

    def loads(world: World) -> torch.Tensor:
        model = copy.deepcopy(start().model)
        balance = ExpertBalance(model, world, num_alike=num_alike)
        mine = tokens_BT if num_alike == world.size else tokens_BT[world.rank :: world.size]
        model(mine, attention_mask=torch.ones_like(mine))
        taken = balance.take_loads()
        assert not balance.take_loads().any(), "taken is taken"
        return taken

    first, second = each_rank(2, loads)
    model = copy.deepcopy(start().model)
    balance = ExpertBalance(model, ALONE)
    model(tokens_BT, attention_mask=torch.ones_like(tokens_BT))
    assert torch.equal(first, balance.take_loads()) and torch.equal(first, second)
    assert first.sum() == tokens_BT.numel() * start().model_config.num_experts_per_tok


def test_a_dense_model_has_no_loads() -> None:
    model = model_start(first_k_dense_replace=2).model
    balance = ExpertBalance(model, ALONE, wants_loss=True)
    model(torch.ones(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 4))
    assert balance.take_loads().shape == (0, 0) and balance.biases() == [] and balance.take_loss() == 0.0


def test_a_row_without_a_task_is_compared_with_its_answer() -> None:
    told = Rubric(RewardConfig(weights={"solution_accuracy": 1.0})).score([
        Sample("p", "<think>x</think>1,000", "1000", "", 3, "stop"), Sample("p", "7", None, "", 1, "stop")])
    assert [scored.correct for scored in told] == [True, None] and [scored.total for scored in told] == [1.0, None]
