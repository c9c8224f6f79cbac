"""The reward is the weighted sum of its components, sample by sample; a hole in the sum is no number."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import RewardConfig
from model_core.errors import UnknownName
from model_core.rewards import REWARDS
from model_core.rewards._types import Sample
from model_core.scoring import Rubric, Scored

TEXTS = st.lists(st.sampled_from([
    "<think>3+2=5;7+8=15;4+5+1=10</think>1055", "<think>473+582=1055</think>1055", "<think>473+582=917</think>917", "1055", "<think>", "",
]), min_size=1, max_size=5)  # fmt: skip
WEIGHTS = st.dictionaries(st.sampled_from([name for name in REWARDS.names() if name != "code"]), st.floats(-2, 2), min_size=1)


def samples(texts: list[str], *, expected: str | None = "1055", task: str = "sums") -> list[Sample]:
    return [Sample("473+582=", text, expected, task, 20 + len(text), "stop") for text in texts]


def scored(texts: list[str], weights: dict[str, float], **values: Any) -> list[Scored]:
    return Rubric(RewardConfig.parse({"weights": weights})).score(samples(texts, **values))


@settings(deadline=None)
@given(TEXTS, WEIGHTS)
def test_the_total_is_the_weighted_sum_of_what_each_component_says_alone(texts: list[str], weights: dict[str, float]) -> None:
    for sample, found in zip(samples(texts), scored(texts, weights), strict=True):
        alone = {name: REWARDS.get(name)()(sample).value for name in weights}
        assert found.components == alone
        assert found.total == pytest.approx(sum(weight * alone[name] for name, weight in weights.items()))


@settings(deadline=None)
@given(TEXTS, WEIGHTS)
def test_samples_are_judged_one_by_one_in_their_order(texts: list[str], weights: dict[str, float]) -> None:
    together = scored(texts, weights)
    assert together == [scored([text], weights)[0] for text in texts]
    assert together[::-1] == scored(texts[::-1], weights)


@settings(deadline=None)
@given(TEXTS, WEIGHTS)
def test_correct_is_the_accuracy_whether_it_is_weighted_or_not(texts: list[str], weights: dict[str, float]) -> None:
    judged = [scored(texts, chosen) for chosen in (weights, {"format": 1.0}, {"solution_accuracy": 0.0})]
    assert [[one.correct for one in found] for found in judged] == [[text.endswith("1055") for text in texts]] * 3


def test_a_hole_leaves_no_total_but_what_is_known_stays() -> None:
    (found,) = scored(["<think>1+1=2</think>2"], {"format": 0.5, "solution_accuracy": 0.0}, expected=None)
    assert found.total is None and found.correct is None and found.components == {"format": 1.0, "solution_accuracy": None}
    (known,) = scored(["<think>1+1=2</think>2"], {"format": 0.5}, expected=None)
    assert known.total == 0.5 and known.correct is None


def test_every_component_says_why() -> None:
    (found,) = scored(["<think>473+582=1055</think>1055"], RewardConfig().weights)
    said = found.detail.split("; ")
    assert all(any(part.startswith(f"{name}: ") for part in said) for name in RewardConfig().weights)


def test_the_articles_weights_are_the_default_and_add_to_one() -> None:
    assert RewardConfig().weights == {"logical_consistency": 0.4, "solution_accuracy": 0.3, "reasoning_clarity": 0.2, "efficiency": 0.1}
    (best,) = scored(["<think>3+2=5;7+8=15;4+5+1=10</think>1055"], RewardConfig().weights)
    assert best.total is not None and best.total == pytest.approx(1 - 0.1 * (20 + 40 - 32) / 64)


def test_an_unknown_component_is_refused_without_a_parse_too() -> None:
    with pytest.raises(UnknownName, match="no reward “magic”"):
        Rubric(RewardConfig(weights={"magic": 1.0}))
