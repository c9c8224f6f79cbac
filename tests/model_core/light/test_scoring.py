"""The reward is the weighted sum of its components, sample by sample; a hole in the sum is no number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.config import RewardConfig, RunConfig, StrictModel
from model_core.errors import ConfigError, UnknownName
from model_core.rewards import REWARDS
from model_core.rewards._types import Sample, Score
from model_core.scoring import Rubric, Scored

TEXTS = st.lists(st.sampled_from([
    "<think>3+2=5;7+8=15;4+5+1=10</think>1055", "<think>473+582=1055</think>1055", "<think>473+582=917</think>917", "1055", "<think>", "",
]), min_size=1, max_size=5)  # fmt: skip
WEIGHTS = st.dictionaries(st.sampled_from([name for name in REWARDS.names() if name not in ("code", "preference")]), st.floats(-2, 2), min_size=1)


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


class Counting:
    """A component that judges all at once and says how often it was asked."""

    bounds = (0.0, 1.0)
    asked: ClassVar[list[int]] = []

    class Config(StrictModel):
        """None."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, sample: Sample) -> Score:
        raise AssertionError("it is asked for all at once")

    def score_many(self, many: Sequence[Sample]) -> list[Score]:
        self.asked.append(len(many))
        return [Score(0.5 if sample.completion else 7.0, "counted") for sample in many]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setitem(REWARDS._found, "counting", Counting)
    Counting.asked.clear()
    return Counting.asked


def test_a_component_that_judges_all_at_once_is_asked_once_and_held_to_its_bounds(counting: list[int]) -> None:
    found = Rubric(RewardConfig(weights={"counting": 2.0})).score(samples(["1055", "", "1055"]))
    assert counting == [3] and [one.total for one in found] == [1.0, None, 1.0]


def test_a_component_counts_from_its_step_and_is_not_asked_before(counting: list[int]) -> None:
    """No other weight changes: what is summed before is what is summed after, less the part."""
    rubric = Rubric(RewardConfig(weights={"format": 0.25, "counting": 1.0}, from_step={"counting": 3, "format": 1}))
    totals = [rubric.at(step).score(samples(["<think>a</think>5"]))[0] for step in (1, 2, 3, 4)]
    assert [one.total for one in totals] == [0.25, 0.25, 0.75, 0.75] and counting == [1, 1]
    assert [sorted(one.components) for one in totals] == [["format"]] * 2 + [["counting", "format"]] * 2
    assert rubric.score(samples(["<think>a</think>5"]))[0] == totals[3], "without a step it is the whole reward"


def test_what_is_right_is_known_before_the_accuracy_counts() -> None:
    rubric = Rubric(RewardConfig(weights={"format": 1.0, "solution_accuracy": 1.0}, from_step={"solution_accuracy": 2}))
    for step in (1, 2):
        assert [one.correct for one in rubric.at(step).score(samples(["1055", "7"]))] == [True, False]
    assert [one.total for one in rubric.at(1).score(samples(["1055"]))] == [0.0]
    assert [one.total for one in rubric.at(2).score(samples(["1055"]))] == [1.0]


@pytest.mark.parametrize(("from_step", "words"), [
    ({"length": 2}, "length, which has no weight"), ({"format": 0}, "counted from 1"), ({"format": 2}, "every component begin late"),
])
def test_a_beginning_that_cannot_be_is_refused(from_step: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        RewardConfig.parse({"weights": {"format": 1.0}, "from_step": from_step})
    assert refused.value.field == "reward.from_step"


def test_a_beginning_after_the_end_of_the_phase_is_refused() -> None:
    reward = {"weights": {"format": 1.0, "efficiency": 1.0}, "from_step": {"efficiency": 9}}
    with pytest.raises(ConfigError, match="counts from step 9 on, but the phase ends at 8") as refused:
        RunConfig.parse({"phase": "reinforcement", "phase_config": {"steps": 8}, "reward": reward})
    assert refused.value.field == "reward.from_step.efficiency"
    assert RunConfig.parse({"phase": "reinforcement", "phase_config": {"steps": 9}, "reward": reward})


def test_an_unknown_component_is_refused_without_a_parse_too() -> None:
    with pytest.raises(UnknownName, match="no reward “magic”"):
        Rubric(RewardConfig(weights={"magic": 1.0}))
