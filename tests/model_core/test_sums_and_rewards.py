"""The demo's task and the article's reward: laws on generated problems, and a few cases by hand."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.config import RewardConfig
from model_core.errors import ConfigError
from model_core.rewards import REWARDS
from model_core.rewards._equations import equations
from model_core.rewards._types import Sample
from model_core.scoring import Rubric
from model_core.tasks._problems import is_held_out
from model_core.tasks.sums import Sums, column_steps


def sample(completion: str, *, expected: str | None = "1055", tokens: int = 25, task: str = "sums") -> Sample:
    return Sample("473+582=", completion, expected, task, tokens, "stop")


def total(completion: str) -> float:
    value = Rubric(RewardConfig()).score([sample(completion)])[0].total
    assert value is not None
    return value


def test_no_prompt_is_in_both_splits_whatever_the_seed() -> None:
    rows = [item for seed in (0, 1) for item in Sums().generate(seed, 300, 100)]
    assert all((split == "held_out") == is_held_out(row["prompt"]) for split, row in rows)


@pytest.mark.parametrize("values", [{"num_digits": 1, "story_fraction": 0.0}, {"num_digits": 2, "story_fraction": 0.0}])
def test_as_many_problems_as_there_are_can_be_had_and_no_more(values: dict[str, Any]) -> None:
    task, prompts = Sums(Sums.Config(**values)), set(Sums(Sums.Config(**values))._prompts())
    num_held_out = sum(is_held_out(prompt) for prompt in prompts)
    num_train = len(prompts) - num_held_out
    assert len(list(task.generate(0, num_train, num_held_out))) == len(prompts) == task._num_prompts()
    for wanted, field in (((num_train + 1, 1), "num_train"), ((1, num_held_out + 1), "num_held_out")):
        with pytest.raises(ConfigError, match="only") as refused:
            next(task.generate(0, *wanted))
        assert refused.value.field == f"source_config.{field}"


def test_stories_are_counted_rightly() -> None:
    task = Sums(Sums.Config(num_digits=1, story_fraction=0.5))
    prompts = list(task._prompts())
    assert len(prompts) == len(set(prompts)) == task._num_prompts()


def test_same_seed_same_rows() -> None:
    assert list(Sums().generate(7, 50, 20)) == list(Sums().generate(7, 50, 20))


def test_every_demonstration_is_right_by_its_own_verifier_and_rewards() -> None:
    rubric, task = Rubric(RewardConfig()), Sums()
    for _split, row in task.generate(3, 200, 50):
        assert task.verify(row["answer"], row["completion"].split("</think>")[1])
        reasoning = row["completion"].split("</think>")[0].removeprefix("<think>")
        assert task.check_steps(row["prompt"], reasoning)[1] == 0
        scored = rubric.score([Sample(row["prompt"], row["completion"], row["answer"], "sums", 25, "stop")])[0]
        assert scored.correct and scored.total == pytest.approx(1.0 if row["meta"]["style"] == "stepwise" else 0.8667, abs=1e-4)


@given(st.integers(100, 999), st.integers(100, 999))
def test_column_steps_hold_and_conclude_in_the_sum(x: int, y: int) -> None:
    steps = column_steps(x, y)
    assert all(equation.holds for equation in equations(steps))
    assert Sums().conclusion(f"{x}+{y}=", steps) == str(x + y)


def test_better_reasoning_is_worth_more() -> None:
    right_steps = total("<think>3+2=5;7+8=15;4+5+1=10</think>1055")
    right_terse = total("<think>473+582=1055</think>1055")
    one_slip = total("<think>3+2=5;7+8=14;4+5+1=10</think>1045")
    lost_carry = total("<think>3+2=5;7+8=15;4+5=9</think>955")
    wrong_terse = total("<think>473+582=917</think>917")
    contradiction = total("<think>473+582=917</think>955")
    nothing = total("<think></think>7")
    assert right_steps > right_terse > one_slip >= lost_carry > wrong_terse > contradiction > nothing


def test_unscored_is_not_zero() -> None:
    scored = Rubric(RewardConfig()).score([sample("<think>1+1=2</think>2", expected=None)])[0]
    assert scored.total is None and scored.correct is None and scored.components["efficiency"] == 1.0


@pytest.mark.parametrize("name", REWARDS.names())
@given(text=st.text(max_size=300), tokens=st.integers(0, 5000))
def test_every_reward_stays_in_its_bounds_and_is_a_function(name: str, text: str, tokens: int) -> None:
    reward = REWARDS.get(name)()
    for task in ("", "sums"):
        score = reward(sample(text, tokens=tokens, task=task))
        assert score == reward(sample(text, tokens=tokens, task=task))
        assert score.value is None or reward.bounds[0] <= score.value <= reward.bounds[1]


@pytest.mark.parametrize(
    ("text", "held"),
    [("3+2=5", [True]), ("7+8=14", [False]), ("48/2 = 24; 48 + 24 = 72", [True, True]), ("<<12/60=0.2>>", [True]), ("x=5", []),
     ("1/0=0", [False])],
)  # fmt: skip
def test_equations_are_found_and_recomputed(text: str, held: list[bool]) -> None:
    assert [equation.holds for equation in equations(text)] == held


@pytest.mark.parametrize("text", ["1+" * 50_000, "1+1=" * 2 + "1a" * 50_000, "=1" * 50_000, "1 " * 50_000, "=" + "1" * 50_000 + "a1"])
def test_equations_are_looked_for_in_linear_time(text: str) -> None:
    gc.disable()  # a collection goes through all that other tests have left, which is no work of ours
    try:
        began = time.process_time()
        equations(text)
        assert time.process_time() - began < 1
    finally:
        gc.enable()
