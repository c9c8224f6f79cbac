"""Intervals and estimators against their definitions: the equation that Wilson solves, all samples counted, exact coverage."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.evaluation.statistics import Z95, bootstrap_mean, pass_at_k, wilson

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


def bootstrap(values: list[float], seed: int = 0, **more: Any) -> tuple[float, float, float]:
    return bootstrap_mean(values, seed, num_resamples=60, **more)


@settings(deadline=None)
@given(COUNTS)
def test_the_bounds_are_where_the_share_is_just_z_deviations_away(counts: tuple[int, int]) -> None:
    """Wilson (1927): |p̂ − p| = z · sqrt(p (1 − p) / n) at both ends."""
    num_correct, n = counts
    share = num_correct / n
    low, high = wilson(num_correct, n)
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        assert (share - bound) ** 2 == pytest.approx(Z95**2 * bound * (1 - bound) / n, abs=1e-12)


@settings(deadline=None)
@given(COUNTS)
def test_wrong_is_right_seen_from_the_other_side(counts: tuple[int, int]) -> None:
    num_correct, n = counts
    low, high = wilson(num_correct, n)
    assert wilson(n - num_correct, n) == pytest.approx((1 - high, 1 - low))


@settings(deadline=None)
@given(COUNTS)
def test_more_right_is_higher_and_more_problems_are_narrower(counts: tuple[int, int]) -> None:
    num_correct, n = counts
    low, high = wilson(num_correct, n)
    more_low, more_high = wilson(min(num_correct + 1, n), n)
    assert more_low >= low and more_high >= high
    wide_low, wide_high = wilson(3 * num_correct, 3 * n)
    assert wide_high - wide_low < high - low


@pytest.mark.parametrize(("num_correct", "n", "expected"), [
    (81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718)),
])
def test_published_intervals(num_correct: int, n: int, expected: tuple[float, float]) -> None:
    """Source: Newcombe, Statistics in Medicine 17 (1998), table I, method 3, which has four digits."""
    assert wilson(num_correct, n) == pytest.approx(expected, abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_the_interval_holds_the_truth_about_95_times_in_a_hundred(share: float) -> None:
    n = 512
    held = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(share) + (n - k) * math.log(1 - share))
        for k in range(n + 1) if wilson(k, n)[0] <= share <= wilson(k, n)[1]
    )  # fmt: skip
    assert 0.94 < held < 0.96


@settings(max_examples=30, deadline=None)
@given(VALUES, st.integers(0, 5))
def test_a_bootstrap_is_a_function_that_stays_among_its_values(values: list[float], seed: int) -> None:
    mean, low, high = bootstrap(values, seed)
    assert (mean, low, high) == bootstrap(values, seed)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


@settings(max_examples=30, deadline=None)
@given(VALUES, st.floats(0.5, 4), st.floats(-10, 10))
def test_a_bootstrap_moves_with_its_values(values: list[float], factor: float, shift: float) -> None:
    moved = bootstrap([factor * value + shift for value in values])
    assert moved == pytest.approx([factor * bound + shift for bound in bootstrap(values)], abs=1e-6)


def test_a_bootstrap_is_as_wide_as_the_normal_interval_where_that_is_right() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0.8, 0.2) for _ in range(400)]
    mean, low, high = bootstrap_mean(values, 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert high - low == pytest.approx(2 * Z95 * deviation / math.sqrt(len(values)), rel=0.1)
    assert bootstrap_mean([0.25] * 50, 2) == (0.25, 0.25, 0.25)
    assert all(math.isnan(bound) for bound in bootstrap_mean([], 0))


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(n: int) -> None:
    for num_correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        choices = list(itertools.combinations(range(n), k))
        right = sum(any(sample < num_correct for sample in choice) for choice in choices)
        assert pass_at_k(n, num_correct, k) == pytest.approx(right / len(choices))


@settings(deadline=None)
@given(COUNTS, st.data())
def test_pass_at_k_grows_with_k_and_with_what_is_right(counts: tuple[int, int], data: st.DataObject) -> None:
    num_correct, n = counts
    k = data.draw(st.integers(1, n))
    assert pass_at_k(n, num_correct, 1) == pytest.approx(num_correct / n)
    assert pass_at_k(n, num_correct, min(k + 1, n)) >= pass_at_k(n, num_correct, k) >= pass_at_k(n, max(num_correct - 1, 0), k)


@pytest.mark.parametrize(("n", "num_correct", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_of_what_cannot_be_is_our_mistake(n: int, num_correct: int, k: int) -> None:
    with pytest.raises(AssertionError):
        pass_at_k(n, num_correct, k)
