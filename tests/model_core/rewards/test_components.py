"""Each component of the reward by its law: what raises it, what lowers it, what it refuses to judge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.errors import ConfigError
from model_core.rewards import REWARDS
from model_core.rewards._types import Sample, Score
from model_core.rewards.reasoning_clarity import ReasoningClarity


def judged(name: str, completion: str, *, settings: dict[str, Any] | None = None, **values: Any) -> Score:
    cls = REWARDS.get(name)
    sample = {"prompt": "473+582=", "expected": "1055", "task": "", "num_tokens": 20, "finish_reason": "stop", **values}
    score: Score = cls(cls.Config.parse(settings or {}))(Sample(completion=completion, **sample))
    return score


def value(name: str, completion: str, **values: Any) -> float | None:
    return judged(name, completion, **values).value


# efficiency


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.lists(st.integers(0, 600), min_size=2, max_size=8))
def test_efficiency_falls_from_the_target_to_the_limit_in_one_line(target: int, room: int, lengths: list[int]) -> None:
    settings = {"target_tokens": target, "limit_tokens": target + room}
    values = [value("efficiency", "5", settings=settings, num_tokens=length) for length in sorted(lengths)]
    assert values == sorted(values, key=lambda v: -(v or 0.0))
    for length in (target - 1, target, target + room, target + room + 1):
        assert value("efficiency", "5", settings=settings, num_tokens=length) == float(length <= target)
    halves = [value("efficiency", "5", settings=settings, num_tokens=target + part) for part in (0, room // 2)]
    assert halves == [1.0, pytest.approx(1 - room // 2 / room)]


def test_efficiency_of_what_was_cut_off_is_nothing_however_short() -> None:
    assert value("efficiency", "5", num_tokens=1, finish_reason="length") == 0.0


@pytest.mark.parametrize("settings", [{"target_tokens": 50, "limit_tokens": 50}, {"target_tokens": 96}, {"limit_tokens": 10}])
def test_efficiency_refuses_a_limit_that_is_not_above_the_target(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"limit_tokens \d+ must be above target_tokens \d+"):
        judged("efficiency", "5", settings=settings)


# format


@pytest.mark.parametrize(("completion", "good"), [
    ("<think>a</think>5", True), ("a</think>5", False), ("<think></think>5", True), ("5", False), ("<think>a</think>", False),
    ("<think>a</think> \n", False), ("<think>a", False), ("a</think>b</think>5", False), ("<think>a<think>b</think>5", False), ("", False),
])
def test_format_wants_one_closed_part_and_an_answer(completion: str, good: bool) -> None:
    assert value("format", completion) == float(good)
    assert value("format", completion, finish_reason="length") == 0.0


# solution accuracy


@pytest.mark.parametrize(("answer", "task", "right"), [
    ("1055", "", True), ("1,055", "", True), (" $1055.00 ", "sums", True), ("1055 keys", "sums", True), ("1054", "", False),
    ("", "", False), ("1055 or 1056", "sums", False), ("-1055", "sums", False), ("one thousand", "", False),
])
def test_accuracy_asks_the_task_or_compares_and_takes_the_answer_alone(answer: str, task: str, right: bool) -> None:
    assert value("solution_accuracy", f"<think>1055 it is</think>{answer}", task=task) == float(right)


def test_accuracy_compares_words_where_no_task_is_asked() -> None:
    assert value("solution_accuracy", "<think>…</think> The  Sun. ", expected="the sun") == 1.0
    assert value("solution_accuracy", "<think>…</think>the moon", expected="the sun") == 0.0


@pytest.mark.parametrize("task", ["", "sums"])
def test_accuracy_without_an_expected_answer_is_unscored(task: str) -> None:
    score = judged("solution_accuracy", "<think>1+1=2</think>2", expected=None, task=task)
    assert score.value is None and "no expected answer" in score.detail


# logical consistency


@pytest.mark.parametrize(("reasoning", "answer", "worth"), [
    ("3+2=5; 5*2=10", "10", 1.0), ("3+2=5; 5*2=11", "11", 0.75), ("3+2=5; 5*2=10", "11", 0.5), ("3+2=6; 5*2=11", "10", 0.0),
    ("3+2=6; 5*2=11", "11", 0.5), ("500*2=1000", "1,000", 1.0), ("1/4+1/4=0.5", "0.50", 1.0), ("3+2=5", "", 0.5), ("3+2=5", "five", 0.5),
    ("it is ten", "10", 0.0), ("", "10", 0.0),
])
def test_consistency_is_half_for_true_steps_and_half_for_what_follows(reasoning: str, answer: str, worth: float) -> None:
    assert value("logical_consistency", f"<think>{reasoning}</think>{answer}") == worth


@pytest.mark.parametrize(("completion", "worth"), [
    ("<think>3+2=5;7+8=15;4+5+1=10</think>1055", 1.0), ("<think>473+582=1055</think>1055", 1.0),
    ("<think>3+2=5;7+8=15;4+5+1=10</think>1056", 0.5), ("<think>3+2=5;7+8=15;4+5=9</think>955", (2 / 3 + 1) / 2),
    ("<think>1+1=2</think>2", 0.5),
])
def test_consistency_of_a_task_takes_the_steps_as_its_task_reads_them(completion: str, worth: float) -> None:
    """A lost carry is a wrong step although each equation holds; the columns put together are what the answer must be."""
    assert value("logical_consistency", completion, task="sums") == pytest.approx(worth)


def test_consistency_does_not_ask_whether_the_answer_is_the_expected_one() -> None:
    asked = {expected: value("logical_consistency", "<think>3+2=5</think>5", expected=expected) for expected in ("5", "6", None)}
    assert set(asked.values()) == {1.0}


# clarity


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 40))
def test_clarity_rises_to_the_wanted_steps_and_falls_beyond_twice_as_many(wanted: int, steps: int) -> None:
    for step in ("1+1=2;", "then so it is. "):
        worth = value("reasoning_clarity", f"<think>{step * steps}</think>2", settings={"num_steps": wanted})
        expected = steps / wanted if steps <= wanted else 1.0 if steps <= 2 * wanted else 2 * wanted / steps
        assert worth == pytest.approx(expected)


@pytest.mark.parametrize(("completion", "detail"), [
    ("<think>1+1=2", "not closed"), ("1+1=2", "not closed"), ("<think></think>2", "no step"), ("<think> .;\n </think>2", "no step"),
])
def test_clarity_of_nothing_shown_is_nothing(completion: str, detail: str) -> None:
    score = judged("reasoning_clarity", completion)
    assert score.value == 0.0 and detail in score.detail


def test_equations_are_the_steps_where_there_are_any() -> None:
    """Words between equations neither add steps nor take any."""
    one = ReasoningClarity.Config().num_steps
    assert value("reasoning_clarity", "<think>First. Then. So. At last 1+1=2. Done.</think>2") == pytest.approx(1 / one)


@pytest.mark.parametrize("reasoning", ["100.5+200=300.5", "1+1=2;" * 5000])
def test_no_reasoning_can_end_a_run(reasoning: str) -> None:
    assert value("logical_consistency", f"<think>{reasoning}</think>5", task="sums") is not None


# language_consistency


@pytest.mark.parametrize(("reasoning", "script", "expected"), [
    ("two plus three is five", "latin", 1.0), ("二加三 is 五", "latin", 1 / 5), ("二加三等于五", "chinese_japanese", 1.0), ("два plus три", "cyrillic", 2 / 3),
    ("2+3=5; 4·5=20", "latin", 1.0), ("", "latin", 0.0), ("the angle π and α = 2", "latin", 1.0), ("\\frac{1}{2} \\times половина", "latin", 0.0),
    ("ένα και δύο", "greek", 1.0), ("日本の かな", "chinese_japanese", 1.0),
])
def test_language_consistency_is_the_share_of_words_in_the_wanted_script(reasoning: str, script: str, expected: float) -> None:
    completion = f"<think>{reasoning}</think>дальше 五"
    assert value("language_consistency", completion, settings={"script": script}) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["two", "два", "二", "7", "π"]), max_size=30), st.randoms())
def test_language_consistency_does_not_depend_on_the_order_of_words(words: list[str], draw: Any) -> None:
    before = value("language_consistency", f"<think>{' '.join(words)}</think>5")
    draw.shuffle(words)
    assert value("language_consistency", f"<think>{' '.join(words)}</think>5") == before


# length and repetition


@pytest.mark.parametrize(("num_tokens", "expected"), [(0, 0.0), (60, 0.0), (80, -0.5), (100, -1.0), (500, -1.0)])
def test_length_is_felt_softly_before_the_longest(num_tokens: int, expected: float) -> None:
    """DAPO's equation 13 at L_max 100 and L_cache 40."""
    assert value("length", "5", settings={"max_tokens": 100, "cache_tokens": 40}, num_tokens=num_tokens) == pytest.approx(expected)


def test_repetition_punishes_what_says_the_same_again_and_nothing_else() -> None:
    once = " ".join(f"word{number}" for number in range(100))
    assert value("repetition", once) == 0.0 and value("repetition", "") == 0.0
    values = [value("repetition", " ".join(["the same four words again"] * times) + once) or 0.0 for times in (1, 10, 100)]
    assert values[0] == 0.0 and 0 > values[1] > values[2] > -1.0


# solution_accuracy


@pytest.mark.parametrize(("answer", "expected", "right"), [
    ("The final answer is \\boxed{42}.", "42", True), ("So we get 6*7=42. The answer is 42", "42", True), ("I have 3 apples; the answer is 43.", "42", False),
    ("\\boxed{\\frac{1}{2}}", "0.5", True), ("It is Paris, so the answer is Paris.", "Paris", True), ("42 and then 43", "42", False), ("", "42", False),
])
def test_solution_accuracy_reads_an_answer_in_prose_as_a_benchmark_does(answer: str, expected: str, right: bool) -> None:
    assert value("solution_accuracy", f"<think>7 or 42</think>{answer}", expected=expected) == float(right)


# every component


@pytest.mark.parametrize("name", [name for name in REWARDS.names() if name != "preference"])
@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200), st.one_of(st.none(), st.text(max_size=20)), st.integers(0, 10**6), st.sampled_from(["stop", "length"]))
def test_whatever_a_model_writes_each_component_stays_in_its_bounds_and_says_the_same_again(
    name: str, completion: str, expected: str | None, num_tokens: int, finish_reason: str
) -> None:
    first, second = (
        judged(name, completion, expected=expected, num_tokens=num_tokens, finish_reason=finish_reason) for _ in range(2)
    )
    low, high = REWARDS.get(name).bounds
    assert first == second and (first.value is None or low <= first.value <= high) and first.detail
