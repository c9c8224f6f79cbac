"""A curriculum: begins easy, goes up when it goes well and back when it does not, forgets nothing, and can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.curriculum import Curriculum, CurriculumConfig
from model_core.errors import CheckpointError, ConfigError, DataError

LEVELS = [1, 2, 3, 4] * 30
RATES = st.lists(st.none() | st.floats(0, 1), min_size=8, max_size=8)


def curriculum(levels: list[int] = LEVELS, *, seed: int = 0, **values: Any) -> Curriculum:
    return Curriculum(levels, seed=seed, config=CurriculumConfig.parse({"num_to_judge": 8, **values}))


def taught(made: Curriculum, rate: Callable[[int], float | None], *, steps: int, first: int = 0) -> list[int]:
    """The level in work after each step, when a row of a level passes at `rate` of it."""
    seen = []
    for step in range(first, first + steps):
        chosen = made.choose(step, 8)
        made.update(chosen, [rate(LEVELS[index]) for index in chosen])
        seen.append(made.level)
    return seen


def test_it_begins_with_the_easiest_and_climbs_one_level_at_a_time_while_it_goes_well() -> None:
    made = curriculum()
    assert made.level == 1 and {LEVELS[index] for index in made.choose(0, 16)} == {1}
    seen = taught(made, lambda _level: 0.9, steps=12)
    assert seen == sorted(seen) and seen[-1] == 4
    assert all(after - before in {0, 1} for before, after in zip([1, *seen], seen, strict=False))


def test_inside_the_band_it_stays() -> None:
    assert set(taught(curriculum(), lambda _level: 0.5, steps=20)) == {1}


def test_it_goes_back_when_the_level_in_work_fails_and_when_an_easier_one_is_forgotten() -> None:
    made = curriculum()
    taught(made, lambda level: 0.9 if level < 3 else 0.5, steps=12)
    assert made.level == 3
    assert 2 in taught(made, lambda level: 0.9 if level < 3 else 0.0, steps=3, first=12)
    made = curriculum(easier_fraction=0.5)
    taught(made, lambda level: 0.9 if level < 4 else 0.5, steps=12)
    assert made.level == 4
    assert min(taught(made, lambda level: 0.5 if level > 1 else 0.0, steps=12, first=12)) == 1


def test_on_the_easiest_level_a_failure_moves_nothing() -> None:
    made = curriculum()
    assert set(taught(made, lambda _level: 0.0, steps=6)) == {1}
    assert made.pass_rates()[1] == 0.0


@pytest.mark.parametrize("easier_fraction", [0.0, 0.2, 0.25, 0.6])
def test_the_easier_levels_keep_their_share(easier_fraction: float) -> None:
    made = curriculum(easier_fraction=easier_fraction)
    taught(made, lambda level: 0.9 if level < 3 else 0.5, steps=40)
    assert made.level == 3
    counts = Counter(LEVELS[index] for step in range(400) for index in made.choose(step, 10))
    assert counts[4] == 0 and sum(counts.values()) == 4000
    assert (counts[1] + counts[2]) / 4000 == pytest.approx(easier_fraction, abs=0.01)
    assert counts[1] == pytest.approx(counts[2], abs=0.1 * 4000 * max(easier_fraction, 0.01))


def test_a_level_is_not_judged_on_too_few_prompts() -> None:
    made = curriculum(num_to_judge=100)
    assert taught(made, lambda _level: 1.0, steps=12) == [1] * 12
    assert taught(made, lambda _level: 1.0, steps=1, first=12) == [2]


def test_unscored_prompts_say_nothing_about_a_level() -> None:
    made = curriculum()
    assert set(taught(made, lambda _level: None, steps=10)) == {1}
    assert made.pass_rates() == dict.fromkeys((1, 2, 3, 4)) and made.state()["num_asked"][0] == 80


def test_every_row_of_a_level_comes_once_before_any_comes_again() -> None:
    made = curriculum()
    rows: list[int] = []
    for step in range(9):
        chosen = made.choose(step, 10)
        made.update(chosen, [0.5] * 10)
        rows += chosen
    laps = [rows[start : start + 30] for start in (0, 30, 60)]
    assert all(sorted(lap) == [index for index, level in enumerate(LEVELS) if level == 1] for lap in laps)
    assert laps[0] != laps[1], "each pass has its own order"


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31 - 1), rates=st.lists(RATES, max_size=12), step=st.integers(0, 10**6), num=st.integers(0, 20))
def test_choosing_is_a_function_of_the_state_and_fewer_are_the_beginning_of_more(
    seed: int, rates: list[list[float | None]], step: int, num: int
) -> None:
    made = curriculum(seed=seed)
    for number, some in enumerate(rates):
        made.update(made.choose(number, 8), some)
    before = made.state()
    chosen = made.choose(step, num)
    assert made.state() == before and made.choose(step, num) == chosen == made.choose(step, num + 5)[:num]
    assert all(LEVELS[index] <= made.level for index in chosen)


@settings(deadline=None, max_examples=40)
@given(rates=st.lists(RATES, min_size=1, max_size=20), cut=st.integers(0, 20))
def test_a_state_that_went_through_json_goes_on_where_it_was(rates: list[list[float | None]], cut: int) -> None:
    whole, resumed = curriculum(), curriculum()
    for number, some in enumerate(rates):
        if number == cut:
            resumed = curriculum()
            resumed.load(json.loads(json.dumps(whole.state())))
        for made in (whole, resumed):
            made.update(made.choose(number, 8), some)
    assert whole.state() == resumed.state() and whole.choose(99, 8) == resumed.choose(99, 8)


def test_a_state_of_other_levels_and_no_rows_and_no_band_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"levels \[1, 2, 3, 4\], the dataset \[1, 2\]") as refused:
        curriculum([1, 2]).load(curriculum().state())
    assert refused.value.field == "dataset"
    with pytest.raises(DataError, match="at least one row"):
        curriculum([])
    with pytest.raises(ConfigError, match="set the first below the second"):
        CurriculumConfig.parse({"pass_rate_low": 0.8, "pass_rate_high": 0.5})


def test_one_level_is_a_curriculum_that_stays() -> None:
    made = curriculum([7] * 5)
    for step in range(10):
        chosen = made.choose(step, 3)
        made.update(chosen, [1.0] * 3)
    assert made.level == 7
