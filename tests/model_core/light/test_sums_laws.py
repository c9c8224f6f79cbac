"""The task of sums: what it makes is true, fair between the splits and as its settings say; what it reads, it reads right."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.errors import ConfigError
from model_core.rewards._equations import equations
from model_core.tasks._problems import HELD_OUT_ONE_IN, ITEMS, NAMES, is_held_out
from model_core.tasks.sums import STORIES, Sums, column_steps

OPERANDS = st.integers(1, 6).flatmap(lambda n: st.tuples(*[st.integers(10 ** (n - 1), 10**n - 1)] * 2))


def made(seed: int = 0, num_train: int = 400, num_held_out: int = 100, **values: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(Sums(Sums.Config(**values)).generate(seed, num_train, num_held_out))


def stepwise_fraction(rows: list[tuple[str, dict[str, Any]]], *, of_stories: bool) -> float:
    """Share of stepwise demonstrations among stories or bare sums."""
    styles = [str(row["meta"]["style"]) for _, row in rows if row["prompt"].endswith("=") != of_stories]
    return styles.count("stepwise") / len(styles)


@pytest.mark.parametrize("num_digits", [1, 2, 4, 6])
def test_rows_are_true_all_different_and_as_many_as_wanted(num_digits: int) -> None:
    rows = made(num_digits=num_digits, num_train=60, num_held_out=20)
    assert Counter(split for split, _ in rows) == {"train": 60, "held_out": 20}
    assert len({row["prompt"] for _, row in rows}) == 80
    for _, row in rows:
        numbers = [int(number) for number in re.findall(r"\d+", row["prompt"])]
        assert [len(str(number)) for number in numbers] == [num_digits] * 2 and row["answer"] == str(sum(numbers))
        assert row["completion"].endswith(f"</think>{row['answer']}") and row["task"] == "sums"
        assert all(equation.holds for equation in equations(row["completion"]))


def test_a_seed_chooses_the_rows_and_the_split_does_not_hang_on_it() -> None:
    first, second = ({row["prompt"]: split for split, row in made(seed)} for seed in (1, 2))
    assert first != second
    assert all(second.get(prompt, split) == split for prompt, split in first.items())
    held = sum(is_held_out(f"prompt {number}") for number in range(5000)) / 5000
    assert held == pytest.approx(1 / HELD_OUT_ONE_IN, abs=0.02)


def test_shares_of_stories_and_of_styles_are_as_set() -> None:
    rows = made(num_train=1500, num_held_out=300)
    default = Sums.Config()
    stories = sum(not row["prompt"].endswith("=") for _, row in rows) / len(rows)
    assert stories == pytest.approx(default.story_fraction, abs=0.04)
    assert stepwise_fraction(rows, of_stories=True) == pytest.approx(1 - default.terse_fraction, abs=0.04)
    assert stepwise_fraction(rows, of_stories=False) == pytest.approx(1 - default.bare_terse_fraction, abs=0.06)


@pytest.mark.parametrize(("story_fraction", "terse_fraction", "bare_terse_fraction"), [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
def test_a_share_of_all_or_nothing_is_exact(story_fraction: float, terse_fraction: float, bare_terse_fraction: float) -> None:
    rows = made(story_fraction=story_fraction, terse_fraction=terse_fraction, bare_terse_fraction=bare_terse_fraction)
    assert {row["prompt"].endswith("=") for _, row in rows} == {story_fraction == 0.0}
    terse = terse_fraction if story_fraction else bare_terse_fraction
    assert {row["meta"]["style"] for _, row in rows} == {"terse" if terse else "stepwise"}


def test_every_story_name_and_thing_is_used() -> None:
    text = " ".join(row["prompt"] for _, row in made(num_train=1500, story_fraction=1.0))
    assert all(name in text for name in NAMES) and all(item in text for item in ITEMS)
    assert all(re.search(r"\w+".join(map(re.escape, re.split(r"\{\w+\}", story))), text) for story in STORIES)


@pytest.mark.parametrize(("field", "value"), [
    ("num_digits", 0), ("num_digits", 7), ("story_fraction", 1.1), ("terse_fraction", -0.1), ("bare_terse_fraction", 2),
])
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError) as refused:
        Sums.Config.parse({field: value})
    assert refused.value.field == field


@settings(deadline=None)
@given(OPERANDS)
def test_columns_are_the_school_addition(operands: tuple[int, int]) -> None:
    x, y = operands
    found = equations(column_steps(x, y))
    assert len(found) == len(str(x)) and all(equation.holds for equation in found)
    carried = [int(equation.right) >= 10 for equation in found]
    assert [equation.left.endswith("+1") and equation.left.count("+") == 2 for equation in found] == [False, *carried[:-1]]
    digits = found[-1].right + "".join(equation.right[-1] for equation in reversed(found[:-1]))
    assert int(digits) == x + y


@settings(deadline=None)
@given(OPERANDS, st.data())
def test_a_slip_in_any_column_is_one_wrong_step_and_a_lost_carry_too(operands: tuple[int, int], data: st.DataObject) -> None:
    x, y = operands
    prompt, steps = f"{x}+{y}=", column_steps(x, y).split(";")
    assert Sums().check_steps(prompt, ";".join(steps)) == (len(steps), 0)
    place = data.draw(st.integers(0, len(steps) - 1))
    left, right = steps[place].split("=")
    slipped = [*steps[:place], f"{left}={int(right) + 1}", *steps[place + 1 :]]
    assert Sums().check_steps(prompt, ";".join(slipped)) == (len(steps) - 1, 1)
    if left.count("+") == 2:
        lost = [*steps[:place], f"{left.removesuffix('+1')}={int(right) - 1}", *steps[place + 1 :]]
        assert Sums().check_steps(prompt, ";".join(lost)) == (len(steps) - 1, 1)


@settings(deadline=None)
@given(OPERANDS)
def test_a_result_at_once_concludes_in_itself(operands: tuple[int, int]) -> None:
    x, y = operands
    task, prompt = Sums(), f"{x}+{y}="
    assert task.conclusion(prompt, f"{x}+{y}={x + y}") == str(x + y)
    assert task.check_steps(prompt, f"{x}+{y}={x + y}") == (1, 0)
    assert task.check_steps(prompt, f"{x}+{y}={x + y + 1}") == (0, 1)
    assert task.check_steps(prompt, f"{x + 1}+{y}={x + y + 1}") == (0, 1), "true, but of other numbers"
    assert task.conclusion(prompt, "no step") is None and task.check_steps(prompt, "") == (0, 0)


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(1, 9))
def test_verifying_takes_the_number_and_no_other(answer: int, off: int) -> None:
    assert Sums().verify(str(answer), f" {answer:,} keys")
    assert not Sums().verify(str(answer), str(answer + off)) and not Sums().verify(str(answer), "")
    assert not Sums().verify("no number", "no number")
