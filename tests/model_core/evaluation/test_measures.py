"""The means, intervals, pass@k and majority of a result: against slow twins, bounds, and nothing scored as zero."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.evaluation.benchmarks import BENCHMARKS
from model_core.evaluation.results import Answered, summarize
from model_core.evaluation.statistics import clustered_interval, clustered_mean, majority, wilson

CLUSTERS = st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6), min_size=2, max_size=30)


@given(CLUSTERS)
def test_a_clustered_mean_is_the_mean_of_means_with_its_standard_error(clusters: list[list[float]]) -> None:
    means = [statistics.fmean(values) for values in clusters]
    mean, error = clustered_mean(clusters)
    assert mean == pytest.approx(statistics.fmean(means))
    assert error == pytest.approx(statistics.stdev(means) / math.sqrt(len(means)), abs=1e-12)
    low, high = clustered_interval(clusters)
    assert 0 <= low <= mean + 1e-12 and mean - 1e-12 <= high <= 1


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60))
def test_one_sample_a_problem_is_wilson(values: list[float]) -> None:
    assert clustered_interval([[value] for value in values]) == pytest.approx(wilson(int(sum(values)), len(values)), abs=1e-9)


@given(CLUSTERS)
def test_the_same_samples_again_make_no_interval_narrower(clusters: list[list[float]]) -> None:
    """Copies of a sample are no new problems: the clustered interval does not believe them, Wilson's would."""
    equal = [[values[0]] for values in clusters]
    once, thrice = clustered_interval(equal), clustered_interval([values * 3 for values in equal])
    assert thrice == pytest.approx(once, abs=1e-9)


def test_no_problem_has_no_mean() -> None:
    assert all(math.isnan(value) for value in clustered_mean([])) and clustered_interval([]) == (0.0, 1.0)
    assert clustered_mean([[1.0, 0.0]])[0] == 0.5 and math.isnan(clustered_mean([[1.0]])[1])


@given(st.lists(st.sampled_from("abc"), max_size=9))
def test_the_majority_is_the_largest_class_and_of_equals_the_first(answers: list[str]) -> None:
    counts = {answer: answers.count(answer) for answer in answers}
    expected = next((answer for answer in answers if counts[answer] == max(counts.values())), None)
    assert majority([f" {answer}" for answer in answers], lambda one, other: one.strip() == other.strip()) == (expected and f" {expected}")


def result_of(texts: list[list[str | None]], expected: str = "5") -> dict[str, Any]:
    benchmark = BENCHMARKS.get("custom")()
    problems = [benchmark.problem(number, {"question": "?", "answer": expected}) for number in range(len(texts))]
    answers = {number: [Answered(text, failure="it is away") for text in row] for number, row in enumerate(texts)}
    return summarize(benchmark, problems, answers)


@given(st.lists(st.lists(st.sampled_from(["5", r"\boxed{5}", "4", "4.0", ""]), min_size=4, max_size=4), min_size=2, max_size=12))
def test_a_result_is_counted_as_a_person_would(texts: list[list[str | None]]) -> None:
    right = [[text in {"5", r"\boxed{5}"} for text in row] for row in texts]
    result = result_of(texts)
    assert result["accuracy"] == pytest.approx(sum(map(sum, right)) / (4 * len(texts))) == result["pass_at_k"]["1"]
    for k in (1, 2, 4):
        chances = [statistics.fmean(any(draw) for draw in itertools.combinations(row, k)) for row in right]
        assert result["pass_at_k"][str(k)] == pytest.approx(statistics.fmean(chances))
    assert result["unscored"] == 0 and result["no_answer"] == sum(row.count("") for row in texts)
    assert result["majority"]["k"] == 4 and 0 <= result["majority"]["accuracy"] <= 1
    assert all(len(entry["samples"]) == 4 for entry in result["problems"])


def test_majority_joins_what_means_the_same() -> None:
    (entry,) = result_of([["1/2", "4", r"\frac{1}{2}", "0.5", "4"]], expected=r"\frac{2}{4}")["problems"]
    assert entry["correct"] and entry["answer"] == "1/2" and entry["accuracy"] == pytest.approx(0.6)


def test_what_is_missing_or_undecided_is_unscored_and_not_wrong() -> None:
    result = result_of([["5", None], ["4", "5"], [None, None], []])
    assert result["accuracy"] == pytest.approx(0.75) and result["unscored"] == 3 and result["unscored_reasons"] == {"it is away": 3}
    assert (result["num_problems"], result["num_without_completion"], result["pass_at_k"]) == (3, 1, {"1": 0.75})
    assert [entry["correct"] for entry in result["problems"]] == [True, False, None]
    nothing = result_of([[None]])
    assert nothing["accuracy"] is None and nothing["stderr"] is None and nothing["low"] is None and nothing["pass_at_k"] == {}
    unreadable = result_of([[r"\sqrt{4}"]], expected=r"\begin{a} ^^ }{")
    assert unreadable["unscored"] == 1 and unreadable["accuracy"] is None and "cannot read" in next(iter(unreadable["unscored_reasons"]))
