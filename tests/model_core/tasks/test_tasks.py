"""Laws of every task that has demonstrations: they are right, a changed one is not, a seed is a seed, a split is a split."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.errors import ConfigError
from model_core.evaluation.answers import number_of
from model_core.rewards._equations import equations
from model_core.tasks import TASKS
from model_core.tasks._problems import MAX_IN_VAIN, is_held_out, new_problems
from model_core.tasks.sums import Sums

STEPPED = ("arithmetic", "expressions", "two_step_stories")
"""Tasks with levels and worked demonstrations."""
SEEDS = st.integers(0, 2**31 - 1)


def made(name: str, *, seed: int = 0, num_train: int = 60, num_held_out: int = 20, **values: Any) -> list[tuple[str, dict[str, Any]]]:
    task = TASKS.get(name)
    return list(task(task.Config.parse(values)).generate(seed, num_train, num_held_out))


def reasoning_of(row: dict[str, Any]) -> str:
    return str(row["completion"]).split("</think>")[0].removeprefix("<think>")


@pytest.mark.parametrize("name", STEPPED)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_a_demonstration_is_verified_and_all_its_steps_are_right(name: str, seed: int) -> None:
    task = TASKS.get(name)()
    for _split, row in made(name, seed=seed, num_train=6, num_held_out=2):
        reasoning, answer = reasoning_of(row), row["completion"].split("</think>")[1]
        assert task.verify(row["answer"], answer, row["meta"]) is True
        assert task.check_steps(row["prompt"], reasoning) == (len(equations(reasoning)), 0)
        assert number_of(task.conclusion(row["prompt"], reasoning)) == number_of(row["answer"])
        assert row["task"] == name and row["level"] >= 1


@pytest.mark.parametrize("name", STEPPED)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, off=st.integers(1, 50), data=st.data())
def test_a_changed_answer_is_refused_and_a_changed_step_is_found(name: str, seed: int, off: int, data: st.DataObject) -> None:
    task = TASKS.get(name)()
    for _split, row in made(name, seed=seed, num_train=4, num_held_out=1):
        answer, reasoning = int(row["answer"]), reasoning_of(row)
        assert not task.verify(row["answer"], str(answer + off)) and not task.verify(row["answer"], str(answer - off))
        assert not task.verify(row["answer"], "") and not task.verify(row["answer"], f"{answer} or {answer + off}")
        results = list(re.finditer(r"=(-?\d+)", reasoning))
        chosen = data.draw(st.sampled_from(results))
        slipped = f"{reasoning[: chosen.start(1)]}{int(chosen[1]) + off}{reasoning[chosen.end(1) :]}"
        right, wrong = task.check_steps(row["prompt"], slipped)
        assert wrong >= 1 and right + wrong == len(results)


@pytest.mark.parametrize("name", STEPPED)
def test_a_seed_gives_the_same_rows_and_another_seed_others(name: str) -> None:
    assert made(name, seed=7) == made(name, seed=7)
    assert made(name, seed=7) != made(name, seed=8)


@pytest.mark.parametrize("name", STEPPED)
def test_no_prompt_comes_twice_or_in_both_splits_whatever_the_seed_and_the_settings(name: str) -> None:
    split_of: dict[str, str] = {}
    for seed, max_level in itertools.product((0, 1), (2, 3)):
        rows = made(name, seed=seed, max_level=max_level, num_train=100, num_held_out=30)
        assert len({row["prompt"] for _split, row in rows}) == len(rows) == 130
        assert all(split_of.setdefault(row["prompt"], split) == split for split, row in rows)
    assert {split: prompt for prompt, split in split_of.items()}.keys() == {"train", "held_out"}
    assert all(is_held_out(prompt) == (split == "held_out") for prompt, split in split_of.items())


@pytest.mark.parametrize(("name", "size"), [
    ("arithmetic", lambda row: max(len(number) for number in re.findall(r"\d+", row["prompt"]))),
    ("two_step_stories", lambda row: max(len(number) for number in re.findall(r"\d+", row["prompt"]))),
    ("expressions", lambda row: len(re.findall(r"[-+*/]", row["prompt"]))),
])  # fmt: skip
def test_the_level_is_the_size_of_a_problem(name: str, size: Any) -> None:
    rows = [row for _split, row in made(name, max_level=4, num_train=200, num_held_out=1)]
    assert all(size(row) == row["level"] for row in rows)
    counts = {level: sum(row["level"] == level for row in rows) for level in range(1, 5)}
    assert min(counts.values()) > 15, "all levels are drawn"
    steps = {level: sum(len(equations(row["completion"])) for row in rows if row["level"] == level) / counts[level] for level in counts}
    ordered = [steps[level] for level in sorted(steps)]
    assert ordered == sorted(ordered) or name == "two_step_stories", "a harder problem takes more steps"


@pytest.mark.parametrize("name", STEPPED)
def test_levels_that_are_no_range_are_refused(name: str) -> None:
    config = TASKS.get(name).Config
    with pytest.raises(ConfigError, match="min_level is 3, above max_level 2"):
        config.parse({"min_level": 3, "max_level": 2})
    with pytest.raises(ConfigError) as refused:
        config.parse({"max_level": 99})
    assert refused.value.field == "max_level"
    assert {row["level"] for _split, row in made(name, min_level=2, max_level=2)} == {2}


@pytest.mark.parametrize("name", STEPPED)
@settings(deadline=None, max_examples=40)
@given(prompt=st.text(max_size=60), reasoning=st.text(alphabet="0123456789+-*/=.;() x\n", max_size=80))
def test_any_text_can_be_checked(name: str, prompt: str, reasoning: str) -> None:
    task = TASKS.get(name)()
    right, wrong = task.check_steps(prompt, reasoning)
    assert min(right, wrong) >= 0 and right + wrong == len(equations(reasoning))
    task.conclusion(prompt, reasoning)
    assert task.verify(prompt, reasoning) in {True, False}


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("reasoning", ["9" * 5000 + "+1=2", "1+1=" + "9" * 5000, "1+" * 5000 + "1=2", "(" * 5000 + "1+1=3"])
def test_absurd_numbers_are_no_steps_and_no_crash(name: str, reasoning: str) -> None:
    task = TASKS.get(name)()
    for prompt in ("3+4=", "(" * 3000 + "1" + ")" * 3000 + "=", "9" * 5000 + "*2="):
        assert task.check_steps(prompt, reasoning)[0] == 0
        assert task.verify("2", "9" * 5000) is False


def test_when_there_are_no_more_problems_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"num_train is 500, but only \d+ different .* raise max_level") as refused:
        made("arithmetic", max_level=1, num_train=500)
    assert refused.value.field == "source_config.num_train"
    few = [str(number) for number in range(8)]
    held_out = sum(map(is_held_out, few))
    draw = random.Random(0)

    def one() -> tuple[str, str]:
        return (text := draw.choice(few)), text

    assert len(list(new_problems(one, 8 - held_out, held_out, remedy="x", max_in_vain=1000))) == 8
    with pytest.raises(ConfigError, match=f"num_held_out is 9, but only {held_out} .* Lower it, or wait"):
        list(new_problems(one, 0, 9, remedy="wait", max_in_vain=1000))


def test_sums_with_hardly_any_stories_end_with_an_error_that_names_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Sums(Sums.Config(num_digits=1, story_fraction=1e-9))
    assert MAX_IN_VAIN < 10**6
    monkeypatch.setattr("model_core.tasks.sums.new_problems", lambda *args, **more: new_problems(*args, **more, max_in_vain=5000))
    with pytest.raises(ConfigError, match="story_fraction, now 1e-09") as refused:
        list(task.generate(0, 200, 20))
    assert refused.value.field == "source_config.task_config.story_fraction"


@pytest.mark.parametrize(("seed", "counts", "values", "digest"), [
    (0, (400, 100), {}, "88dcd893184c0d1a6476fedb485842d16b32aa6e3944e1e93ddd54f1b087f083"),
    (7, (200, 60), {"num_digits": 2, "story_fraction": 0.3}, "cdb86134ae52b17f7d5d4e0fd429934bd849a2824844331887cf28f1b7730954"),
])  # fmt: skip
def test_the_sums_of_a_seed_are_what_the_demo_was_tuned_on(seed: int, counts: tuple[int, int], values: dict[str, Any], digest: str) -> None:
    found = hashlib.sha256()
    for split, row in Sums(Sums.Config(**values)).generate(seed, *counts):
        kept = {key: row[key] for key in ("prompt", "completion", "answer", "task", "meta")}
        found.update((split + json.dumps(kept, sort_keys=True)).encode())
    assert found.hexdigest() == digest
